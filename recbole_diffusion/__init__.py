"""Diffusion models for sequential recommendation, as a plugin for RecBole.

Importing it loads nothing else. torch and RecBole are loaded by the modules that need them.
"""

from importlib import import_module
from typing import Any

from recbole_diffusion._version import __version__

__all__ = ["__version__", "convert"]
# Functions that are loaded when they are first used, by their module.
_LAZY = {"convert": "recbole_diffusion.conversion.api"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
