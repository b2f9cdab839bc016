"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import pandas
import scipy
import torch

from recbole_diffusion._version import __version__


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "recbole_diffusion": __version__,
        "recbole": version("recbole"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pandas": pandas.__version__,
        "scipy": scipy.__version__,
    }
