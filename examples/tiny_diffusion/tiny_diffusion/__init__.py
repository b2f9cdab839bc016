"""A model for recbole_diffusion in a package of its own."""
