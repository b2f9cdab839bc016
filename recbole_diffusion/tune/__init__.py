"""The search for the settings that validate best."""
