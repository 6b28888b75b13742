"""Tokenizers: their config, their training, and what they do."""
