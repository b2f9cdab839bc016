"""Search for the settings that validate best."""
