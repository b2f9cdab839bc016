"""How :mod:`recbole_diffusion.compat` repairs a method of RecBole: it replaces an expression inside the method."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Mapping
from importlib import resources
from typing import Any


class CannotMend(ImportError):
    """RecBole's code is neither the code that a repair was written for, nor repaired code."""


def any_file_has(text: str, *paths: str) -> bool:
    """Whether one of RecBole's files contains ``text``. The files are read and not imported.

    Raises:
        CannotMend: there is no such file.
    """
    files = [resources.files("recbole").joinpath(path) for path in paths]
    gone = [path for path, file in zip(paths, files, strict=True) if not file.is_file()]
    if gone:
        raise CannotMend(f"it has no file {gone[0]}.")
    return any(text in file.read_text(encoding="utf-8") for file in files)


def replace_in_source(owner: type, name: str, replacements: Mapping[str, str]) -> None:
    """Compile the method ``owner.name`` again, with each old text replaced by the new text.

    If it has all new texts and no old one, nothing happens. The new method keeps RecBole's method as ``original``.

    Raises:
        CannotMend: there is no such method, or it contains neither an old text nor the new one.
        TypeError: the method needs a closure, e.g. for ``super()``, which would be lost.
    """
    method: Any = vars(owner).get(name)
    if method is None:
        raise CannotMend(f"there is no {owner.__name__}.{name}.")
    try:
        source = patched = inspect.getsource(method)
    except OSError as error:
        raise CannotMend(f"the source of {owner.__name__}.{name} cannot be read ({error}).") from error
    for old, new in replacements.items():
        if old not in patched and new not in patched:
            raise CannotMend(
                f"{owner.__name__}.{name} contains neither the text to replace, {old.strip()!r}, nor the new text, "
                f"{new.strip()!r}."
            )
        if old not in new or new not in patched:  # if the new text contains the old one, it is inserted only once
            patched = patched.replace(old, new)
    if patched == source:
        return
    if method.__closure__:
        raise TypeError(f"{method.__qualname__} uses super() or another closure: it cannot be compiled alone.")
    filename = f"<{method.__module__}.{method.__qualname__} as repaired by {__name__}>"
    text = f"if True:\n{patched}"  # the method is indented, as in its class
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)  # for tracebacks
    namespace: dict[str, Any] = {}
    exec(compile(text, filename, "exec", dont_inherit=True), method.__globals__, namespace)
    replacement = namespace[name]
    replacement.__qualname__ = method.__qualname__
    replacement.original = getattr(method, "original", method)
    setattr(owner, name, replacement)
