"""Data prepared once, written once, and mapped into memory."""
