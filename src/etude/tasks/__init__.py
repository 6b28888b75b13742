"""What a batch means, and the search that turns a model's output into predictions."""
