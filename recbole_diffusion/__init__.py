"""Diffusion models for sequential recommendation, as a plugin for RecBole.

Importing it loads nothing else. torch and RecBole are loaded when ``load`` or ``Recommender`` is first read, and by the
modules that need them.
"""

from typing import TYPE_CHECKING, Any

from recbole_diffusion._version import __version__

if TYPE_CHECKING:
    from recbole_diffusion.recommend.recommender import Recommender, load

__all__ = ["Recommender", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Recommender", "load"):
        from recbole_diffusion.recommend import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
