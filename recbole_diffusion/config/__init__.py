"""What a setting is, which there are, and how they are read."""
