"""A trained model in use: lists for users and histories, and later evaluation."""
