"""Diffusion models for sequential recommendation, as a plugin for RecBole."""

from importlib.util import find_spec

from recbole_diffusion._version import __version__

if find_spec("recbole") is None:
    raise ImportError(
        "recbole_diffusion needs RecBole 1.2.1, which is not installed: pip install --no-deps recbole==1.2.1"
    )

from recbole_diffusion import compat

compat.apply()

__all__ = ["__version__"]
