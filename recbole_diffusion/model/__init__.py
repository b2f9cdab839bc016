"""The recommenders: a shared base, and one file per paper."""

from recbole_diffusion import compat

compat.apply()
