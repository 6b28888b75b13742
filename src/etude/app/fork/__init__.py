"""Forks: runs that share the first steps of another to the bit, and then go their own way."""
