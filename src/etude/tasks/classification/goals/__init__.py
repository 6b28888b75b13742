"""What is predicted of a sample: one label, several labels, or numbers."""
