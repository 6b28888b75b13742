"""The faces: shell, Python trainer, and the one place that turns a config into objects."""
