"""Translation: pairs of texts."""
