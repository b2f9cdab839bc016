"""What every reader of settings needs: the error for a user's mistake, and checks of names and numbers."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

Settings = dict[str, Any]
_LONGEST_SHOWN = 200  # letters of a value in a message


class UserError(ValueError):
    """A mistake of the user. The command line shows one line without a traceback, and exits with status 2."""


def did_you_mean(value: str, allowed: Iterable[str], count: int = 3) -> str:
    """`` Did you mean 'a' or 'b'?`` with the names most similar to ``value``; an empty string if none is similar."""
    by_lower = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(value.lower(), by_lower, n=count, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_lower[name]) for name in near)}?" if near else ""


def shown(value: Any) -> str:
    """A value in a message, on one line and not too long."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


# Characters with a meaning in paths or patterns of file names on some system, and control characters.
_NO_NAME = re.compile(r"[/\\:*?\[\]<>|\"\x00-\x1f\x7f]")
_LONGEST_NAME = 100  # bytes; the names of files and folders contain it


def check_name(key: str, name: Any) -> None:
    """Refuse a name that cannot be one part of a path, because it becomes the name of files and folders.

    Raises:
        UserError: ``name``, the value of the setting ``key``, is not allowed.
    """
    size = len(name.encode(errors="replace")) if isinstance(name, str) else 0
    if not 0 < size <= _LONGEST_NAME or not name.strip(". ") or _NO_NAME.search(name):
        shown = repr(name) if size <= _LONGEST_NAME else f"{name[:40]!r}..."
        raise UserError(
            f"{key}={shown}: must be a name of at most {_LONGEST_NAME} bytes, without any of "
            '/ \\ : * ? [ ] < > | " and not only dots.'
        )


def check_heads(heads: tuple[str, int], size: tuple[str, int]) -> None:
    """Check that attention heads have the same size.

    Args:
        heads, size: names and values of the settings.

    Raises:
        UserError: the number of heads does not divide the size.
    """
    if size[1] % heads[1]:
        raise UserError(f"{heads[0]}={heads[1]}: must divide {size[0]}={size[1]}.")


def rows_at_once(max_cells: int, columns: int) -> int:
    """How many rows of ``columns`` numbers are at most ``max_cells`` numbers; at least 1."""
    return max(1, max_cells // columns)


def check_finite(settings: Mapping[str, Any]) -> None:
    """Refuse inf and nan, also inside lists and dictionaries.

    Raises:
        UserError: a setting has one; the message names it.
    """
    for key, value in settings.items():
        if not is_finite(value):
            raise UserError(f"{key}={value!r}: must be finite, neither inf nor nan.")


def is_finite(value: Any) -> bool:
    """Whether a value has no inf and no nan, also inside lists and mappings."""
    if isinstance(value, dict):
        # The infinity norm is allowed: clip_grad_norm={max_norm: 5, norm_type: .inf}.
        return all(is_finite(item) for key, item in value.items() if key != "norm_type")
    if isinstance(value, list | tuple):
        return all(is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
