"""Settings: which there are, which values are allowed, and how they are read."""
