"""The recommenders: a shared base, and one file a paper."""
