"""From atomic files to batches: lazy histories, windows, and the loaders of each model."""

from recbole_diffusion import compat

compat.apply()
