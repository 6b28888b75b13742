"""Saved outputs of several runs as those of one: joined by sample, averaged, processed and measured."""
