"""The forward model: truth in, the raw frames of a night out. One file a concept."""
