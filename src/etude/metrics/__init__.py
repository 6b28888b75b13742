"""What is measured on a pass over a split."""
