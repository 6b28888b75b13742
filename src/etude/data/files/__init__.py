"""Readers of formats: lines, names, text, pairs; and what was skipped."""
