"""Batches as they come, from prepared data or from loaders of the user's own."""
