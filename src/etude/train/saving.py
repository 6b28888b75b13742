"""Saves of a run: what a checkpoint is made of, and what happens where one fails."""

import json
import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import final

import numpy as np
import torch

from etude.base.errors import StorageError
from etude.train.learner import Learner
from etude.train.memory.checkpoint.content import Content
from etude.train.memory.checkpoint.naming import checkpoint_folder
from etude.train.memory.keeper import Keeper
from etude.train.memory.portable import TASK_FILE, describe_task
from etude.train.memory.state import State
from etude.train.stopping import Stopping
from etude.train.watch.record import Record

__all__ = ["Saves", "capture"]


@final
class Saves:
    """Hands checkpoints to a keeper; a failed one is tried again at the next save, but not for ever."""

    def __init__(
        self,
        keeper: Keeper,
        record: Record,
        stopping: Stopping,
        *,
        config: Mapping[str, object],
        metrics: Callable[[], Mapping[str, float]],
        most_failed: int,
        say: Callable[[str], None],
    ) -> None:
        self.keeper = keeper
        self.cut: int | None = None
        """Bytes of the record that belong to a run which goes on, where its end has written more."""
        self._record = record
        self._stopping = stopping
        self._config = config
        self._metrics = metrics
        self._most_failed = most_failed
        self._failed = 0
        self._say = say

    def folder(self, step: int) -> Path | None:
        """Where the checkpoint of a step lies."""
        return self.keeper.folder and checkpoint_folder(self.keeper.folder, step)

    def save(self, learner: Learner, state: State, *, best: bool) -> bool:
        """Save a checkpoint, in the end of a run until it is written; whether it could be begun.

        Raises StorageError for a failure that is one too many, or that of the last save.
        """
        final = state.end is not None
        self._finish(final=False)
        try:
            size = self._record.size()
        except StorageError as error:  # a checkpoint counts no row that is not durable
            self._fail(error, final=final)
            return False
        state.record = size if self.cut is None else self.cut
        content = capture(learner, state, self._config, self._metrics())
        self.keeper.save(content, best=best, ranking=self._stopping.ranking)
        if final:
            self._finish(final=True)
        return True

    def _finish(self, *, final: bool) -> None:
        """Wait for the save that is being written; a failed one is told of."""
        try:
            if self.keeper.wait():
                self._failed = 0
        except StorageError as error:
            self._fail(error, final=final)

    def _fail(self, error: StorageError, *, final: bool) -> None:
        self._failed += 1
        if final or self._failed >= self._most_failed:
            raise error
        self._say(f"{error} Training continues and tries again at the next save.")


def capture(learner: Learner, state: State, config: Mapping[str, object], metrics: Mapping[str, float]) -> Content:
    """The run as it stands."""
    return Content.capture(
        state.progress.step,
        **learner.state_dict(),
        state=state.state_dict(),
        extra={TASK_FILE: describe_task(learner.task)},
        about={
            "config": sha256(json.dumps(dict(config), sort_keys=True, default=str).encode()).hexdigest(),
            "versions": {"etude": version("etude"), "torch": torch.__version__, "numpy": np.__version__},
            "metrics": {key: value for key, value in metrics.items() if math.isfinite(value)},
        },
    )
