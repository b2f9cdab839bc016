"""The mathematics of diffusion: schedules, process, denoisers, samplers, timesteps.

Knows no recommender and imports only torch and the standard library.
"""
