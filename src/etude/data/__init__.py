"""Examples to batches: sources, tokenizers, order, batches, loading."""
