"""Rows and files: the registry, which is the truth, and the store of products. Knows neither pixels nor queue."""
