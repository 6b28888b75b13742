"""Finding values before a run: a learning rate, a batch size; nothing of it stays on the disk."""
