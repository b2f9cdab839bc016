"""Metrics beyond accuracy (diversity, coverage, novelty), the comparison with Pop, and example recommendations."""

from recbole_diffusion import compat

compat.apply()
