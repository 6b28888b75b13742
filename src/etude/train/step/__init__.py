"""What a step is: from a group of batches to the optimizer."""
