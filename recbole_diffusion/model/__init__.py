"""The recommenders: a shared base, and one file a paper."""

from recbole_diffusion import compat

compat.apply()
