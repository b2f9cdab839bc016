"""Diffusion models for sequential recommendation, as a plugin for RecBole.

Importing it loads nothing else. torch and RecBole are loaded by the modules that need them.
"""

from recbole_diffusion._version import __version__

__all__ = ["__version__"]
