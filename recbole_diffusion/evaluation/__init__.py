"""What accuracy does not show: how diverse, how varied between users and how novel the recommended lists are."""

from recbole_diffusion import compat

compat.apply()
