"""Saves of a run: what a checkpoint is made of, and what happens where one fails."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import final

import numpy as np
import torch

from etude.base.errors import DivergedError, StorageError
from etude.train.learner import Learner
from etude.train.memory.checkpoint.content import Content
from etude.train.memory.checkpoint.naming import checkpoint_folder
from etude.train.memory.checkpoint.origin import take_in
from etude.train.memory.checkpoint.parts import Writer
from etude.train.memory.keeper import Keeper
from etude.train.memory.portable import TASK_FILE, describe_task
from etude.train.memory.state import State
from etude.train.stopping import Stopping
from etude.train.together import broken
from etude.train.watch.record import NO_MARK, Mark, Record

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
        origin: str,
        metrics: Callable[[], Mapping[str, float]],
        most_failed: int,
        say: Callable[[str], None],
    ) -> None:
        self.keeper = keeper
        self.cut: Mark | None = None
        """The part of the record that belongs to a run which goes on, where its end has written more."""
        self.broken_since: int | None = None
        """The step at which the weights were first found not to be finite."""
        self._record = record
        self._stopping = stopping
        self._origin = origin
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
        if (name := broken(learner.among, learner.task)) is not None:
            self._leave_out(name, state)
            return False
        error, mark = self._marked()
        is_sharded = learner.among.sharding.is_sharded
        if is_sharded:
            error = learner.among.world.agree(error)
        if error is not None:
            self._fail(error, final=final)
            return False
        state.record, state.record_hash = self.cut or mark
        if is_sharded or self.keeper.keeps:  # sharded weights are gathered by all ranks
            content = capture(learner, state, self._origin, self._metrics(), writers=self.keeper.writers)
            self.keeper.save(content, best=best, ranking=self._stopping.ranking)
        if final:
            self._finish(final=True)
        return True

    def _marked(self) -> tuple[StorageError | None, Mark]:
        """The rows that a checkpoint counts, all of which are durable, or why they are not."""
        try:
            mark = self._record.mark()
            if self.keeper.folder is not None:
                take_in(self.keeper.folder, [self._origin])
        except StorageError as error:
            return error, NO_MARK
        return None, mark

    def _leave_out(self, broken: str, state: State) -> None:
        """Tell, once, of weights that are not finite: they take the place of no checkpoint.

        Raises DivergedError at the end of a run that keeps its checkpoints.
        """
        last = self.keeper.last or Path("none")
        if self.broken_since is None:
            self.broken_since = state.progress.step
            self._say(
                f"Step {state.progress.step:,}: the weights are not finite ({broken} is the first); they are not "
                f"saved, and the last checkpoint stays {last.name}."
            )
        if state.end is not None and self.keeper.folder is not None:
            raise DivergedError(
                f"The run ends with weights that are not finite ({broken} is the first, seen at step "
                f"{self.broken_since:,}); the last checkpoint, from which the same command goes on, is "
                f"{last}. A lower learning rate or clip_grad may help."
            )

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


def capture(learner: Learner, state: State, origin: str, metrics: Mapping[str, float], *, writers: int = 1) -> Content:
    """The run as it stands, or what this rank writes of it; `origin` is the hash of its config."""
    among = learner.among
    return Content.capture(
        state.progress.step,
        **learner.state_dict(),
        state=state.state_dict(),
        extra={TASK_FILE: describe_task(learner.task, learner.shape.name)},
        about={
            "config": origin,
            "versions": _versions(),
            "metrics": {key: value for key, value in metrics.items() if math.isfinite(value)},
        },
        among=Writer(among.world.rank, writers, among.sharding.handed_out),
    )


@cache
def _versions() -> Mapping[str, str]:
    """What wrote a checkpoint; read once, since training waits."""
    return {"etude": version("etude"), "torch": torch.__version__, "numpy": np.__version__}
