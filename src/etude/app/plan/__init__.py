"""The plan of a run before it is trained."""
