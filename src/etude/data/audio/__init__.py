"""Audio: from files to waves, from waves to features, and what is changed of both in training."""
