"""The errors, by their public name: `etude.errors.ConfigError`."""

from etude.base.errors import (
    ConfigError,
    DataError,
    DistributedError,
    DivergedError,
    EtudeError,
    RefusedError,
    StorageError,
)

__all__ = [
    "ConfigError",
    "DataError",
    "DistributedError",
    "DivergedError",
    "EtudeError",
    "RefusedError",
    "StorageError",
]
