"""Language models: plain text."""
