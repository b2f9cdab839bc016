"""The mathematics of diffusion: schedules, processes, training steps, denoisers, samplers, timesteps.

It knows no recommender, and imports only torch and the standard library.
"""
