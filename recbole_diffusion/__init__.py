"""Diffusion models for sequential recommendation, as a plugin for RecBole.

Importing it loads nothing else. torch and RecBole are loaded when ``load`` or ``Recommender`` is first read, and by the
modules that need them; polars when ``convert`` is called.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_diffusion._version import __version__

if TYPE_CHECKING:
    from recbole_diffusion.conversion.api import convert
    from recbole_diffusion.recommend.recommender import Recommender, load

__all__ = ["Recommender", "__version__", "convert", "load"]
_MODULES = {"Recommender": "recommend.recommender", "convert": "conversion.api", "load": "recommend.recommender"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"recbole_diffusion.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
