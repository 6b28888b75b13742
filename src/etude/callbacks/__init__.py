"""What only watches a run: progress, loggers."""
