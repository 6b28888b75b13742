"""The Python face: a trainer, and `fit` for a plain module."""
