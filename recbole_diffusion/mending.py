"""How :mod:`recbole_diffusion.compat` mends a method of RecBole: an expression inside it is replaced."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Mapping
from importlib import resources
from typing import Any


class CannotMend(ImportError):
    """RecBole's code is neither what a mend here was written for nor mended."""


def any_file_has(text: str, *paths: str) -> bool:
    """Whether one of RecBole's files holds ``text``; reads them, because importing may be what is to be avoided."""
    files = [resources.files("recbole").joinpath(path) for path in paths]
    gone = [path for path, file in zip(paths, files, strict=True) if not file.is_file()]
    if gone:
        raise CannotMend(f"it has no file {gone[0]}.")
    return any(text in file.read_text(encoding="utf-8") for file in files)


def replace_in_source(owner: type, name: str, replacements: Mapping[str, str]) -> None:
    """Compile the method ``owner.name`` again with each old text replaced by the new.

    Where all new texts are there and no old one is left, it is mended and stays. The compiled one keeps RecBole's as
    ``original``.

    Raises:
        CannotMend: there is no such method, or it holds neither an old text nor its new one.
        TypeError: the method needs a closure, e.g. for ``super()``, which compiling it alone would lose.
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
                f"{owner.__name__}.{name} holds neither the text to mend, {old.strip()!r}, nor its mended form, "
                f"{new.strip()!r}."
            )
        if old not in new or new not in patched:  # a new text that holds the old one goes in once
            patched = patched.replace(old, new)
    if patched == source:
        return
    if method.__closure__:
        raise TypeError(f"{method.__qualname__} uses super() or another closure: it cannot be compiled alone.")
    filename = f"<{method.__module__}.{method.__qualname__} as mended by {__name__}>"
    text = f"if True:\n{patched}"  # takes the method as it is indented in its class
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)  # for tracebacks
    namespace: dict[str, Any] = {}
    exec(compile(text, filename, "exec", dont_inherit=True), method.__globals__, namespace)
    replacement = namespace[name]
    replacement.__qualname__ = method.__qualname__
    replacement.original = getattr(method, "original", method)
    setattr(owner, name, replacement)
