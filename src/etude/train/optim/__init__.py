"""Optimizers: their config, their parameter groups, and what the loop knows of each."""
