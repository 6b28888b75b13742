"""From a model's next-step function to predictions; nothing of training."""
