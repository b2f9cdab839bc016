"""Train and test several models on several data sets with several seeds, and report."""
