"""Several models on several data sets with several seeds, and the report of them."""
