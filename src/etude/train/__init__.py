"""The loop and all that one run must remember.

The package is callable, since `etude.train("config.toml")` is a public face while `etude.train` is where this code
lives.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _TrainPackage(ModuleType):
    def __call__(self, config: object, overrides: Mapping[str, object] | None = None) -> Any:
        """Train the run that a config file describes; see `etude.app.running.train`."""
        # By name: the face stands above this package, and no arrow may point up.
        return import_module("etude.app.running").train(config, overrides)


sys.modules[__name__].__class__ = _TrainPackage
