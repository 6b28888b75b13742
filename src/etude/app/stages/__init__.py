"""Stages: what a run is made of, one after the other, each of which leaves something for the next."""
