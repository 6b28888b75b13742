"""The config of a run folder, told from one that somebody wrote."""

from pathlib import Path

from etude.base.config.command import Override
from etude.base.config.fields import absolute

CONFIG, OF_RUNS = "config.toml", ("environment.json", "fork.json", "pipeline.json")
"""What the config of a run is called in its folder, and what lies beside it."""
LOG = "log.txt"
"""The file of a run's folder that holds what its process said, where a sweep trains it."""


def home_of(path: Path | str | None) -> list[Override]:
    """Where the run of a config lies, where that is the config of a run folder."""
    file = None if path is None else absolute(str(path))
    if file is None or not is_of_run(file):
        return []
    place = {("run", "dir"): str(file.parent.parent), ("run", "name"): file.parent.name}
    return [Override(key, value, "the run folder that the config lies in") for key, value in place.items()]


def is_of_run(config: Path) -> bool:
    """Whether a config is that of a run folder rather than one that somebody wrote."""
    return config.name == CONFIG and any((config.parent / name).is_file() for name in OF_RUNS)
