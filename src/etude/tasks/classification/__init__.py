"""Classification: texts with a label."""
