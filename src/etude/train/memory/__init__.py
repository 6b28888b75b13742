"""All that a run remembers: its state, and the checkpoints that hold it."""
