"""Pixels: one module a recipe, each a pure function of one channel. Knows neither archive, queue nor settings."""
