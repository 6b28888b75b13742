"""The dry run of a config: every part of it made as for training, in a folder that goes away."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from etude.app.running import MakesTask, build_job, made
from etude.app.runs.folder import has_checkpoint
from etude.base.says import Say
from etude.tasks.config import Config, LoadedConfig
from etude.train.fit import Job


class DryRun(NamedTuple):
    """A job that leaves nothing behind, and the config that it was made of."""

    job: Job
    """It has no folder, and nobody watches it."""
    config: Config
    """Its folder is there until the dry run is over."""


@contextmanager
def dry_run(loaded: LoadedConfig, purpose: str, say: Say, *, task: MakesTask = made) -> Iterator[DryRun]:
    """Read the data and make the parts of a run in a temporary folder, which is named after the purpose.

    The folder is removed and the feeds are closed with the block; an error in it tells where its key was given.
    """
    with tempfile.TemporaryDirectory(prefix=f"etude-{purpose}-") as temporary:
        elsewhere = _moved(loaded, Path(temporary))
        folder = elsewhere.config.folder
        with elsewhere.naming_places():
            folder.mkdir(parents=True)
            job = build_job(elsewhere, folder, _without_places(say), task)
            job.folder, job.callbacks, job.loggers = None, (), ()
            try:
                yield DryRun(job, elsewhere.config)
            finally:
                _close(job)


def _moved(loaded: LoadedConfig, folder: Path) -> LoadedConfig:
    """The same run, in another place; one that goes on needs what it began with no more there than in its own."""
    sections: dict[str, object] = {"run": loaded.config.run.model_copy(update={"dir": folder})}
    if has_checkpoint(loaded.config.folder):
        sections["init"] = loaded.config.init.model_copy(update={"from_": []})
    data = {**loaded.data, "run": {**loaded.data["run"], "dir": str(folder)}}
    later = tuple(_moved(one, folder) for one in loaded.later)
    return dataclasses.replace(loaded, config=loaded.config.model_copy(update=sections), data=data, later=later)


def _without_places(say: Say) -> Say:
    """Say all but where the run lies, which here is a folder that goes away."""
    return lambda text: None if text.startswith("Run folder") else say(text)


def _close(job: Job) -> None:
    job.train.close()
    if job.val is not None:
        job.val.close()
