"""Which checkpoints of a run are meant: its last or best ones, those of some steps, or those that are named."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.app.fork.kept import Kept
from etude.app.runs.folder import tokenizer_hashes
from etude.app.runs.run import Run
from etude.base.errors import ConfigError, RefusedError
from etude.base.paths import user_path
from etude.tasks.task_type import TOKENIZERS
from etude.train.memory.checkpoint.naming import FOLDER
from etude.train.memory.checkpoint.store import Store
from etude.train.memory.preload.place import place_of


@dataclass(frozen=True)
class Choice:
    """What was asked for; one of these."""

    last: int | None = None
    best: int | None = None
    steps: str | None = None
    """From which step to which, both included and either left out: "1000:5000", "1000:"."""
    checkpoints: Sequence[str] = ()

    def of(self, run: Run) -> list[Path]:
        """The folders of the checkpoints: as they are named, or oldest first.

        Raises ConfigError where none or not enough are there, or where not exactly one thing was asked for.
        """
        asked = [self.last is not None, self.best is not None, self.steps is not None, bool(self.checkpoints)]
        if sum(asked) != 1:
            raise ConfigError(
                "Which checkpoints? Give one of --last N, --best N, --steps FROM:TO, or --checkpoints with steps, "
                "best, last or folders."
            )
        if self.last is not None:
            return self._last(run, self.last)
        if self.best is not None:
            return self._best(run, self.best)
        return self._between(run, self.steps) if self.steps is not None else self._named(run)

    def _last(self, run: Run, count: int) -> list[Path]:
        store = Store(run.folder / FOLDER)
        steps = store.steps()
        _check_count("--last", count, len(steps), f"{run.folder} has {len(steps)}; train.keep_last says how many")
        return [store.path(step) for step in steps[-count:]]

    def _best(self, run: Run, count: int) -> list[Path]:
        store = Store(run.folder / FOLDER)
        ranked = _ranked(store)
        has = f"of those that {run.folder} has, {len(ranked)} were validated; train.keep_best says how many"
        _check_count("--best", count, len(ranked), has)
        return [store.path(step) for step in sorted(ranked[:count])]

    def _between(self, run: Run, span: str) -> list[Path]:
        first, last = _bounds(span)
        store = Store(run.folder / FOLDER)
        found = [store.path(step) for step in store.steps() if first <= step <= last]
        if not found:
            there = ", ".join(map(str, store.steps())) or "none"
            raise ConfigError(f"--steps {span} has no checkpoint of {run.folder} in it: there are {there}.")
        return found

    def _named(self, run: Run) -> list[Path]:
        found = [Path(os.path.realpath(_folder(run, name))) for name in self.checkpoints]
        for name, path in zip(self.checkpoints, found, strict=True):
            if found.count(path) > 1:
                raise ConfigError(f"--checkpoints names {path.name} twice ({name}): name it once.")
            _refuse_other_tokens(run, path)
        return found


def _check_count(flag: str, count: int, there: int, has: str) -> None:
    if count < 1:
        raise ConfigError(f"{flag} must be at least 1, but is {count}.")
    if there < count:
        raise ConfigError(f"{flag} asks for {count} checkpoints, but {has} a run keeps.")


def _ranked(store: Store) -> list[int]:
    """The steps whose checkpoint is there and was validated, by the monitored metric, best first; of equals the
    earlier first.
    """
    steps = store.steps()
    if not steps:
        return []
    merits = Kept.at(store.path(steps[-1])).merits
    return sorted(filter(merits.__contains__, steps), key=merits.__getitem__)


def _bounds(span: str) -> tuple[float, float]:
    """The first and the last step of "FROM:TO"."""
    ends = span.split(":")
    if len(ends) != 2 or not all(end.isdecimal() for end in filter(None, ends)):  # noqa: PLR2004 - both ends
        raise ConfigError(f'--steps must be two steps, such as "1000:5000" or "1000:", but is "{span}".')
    first, last = ends
    return int(first or 0), int(last) if last else math.inf


def _folder(run: Run, name: str) -> Path:
    """The checkpoint that is named: one of the run, or one by its folder, which may be another run's."""
    path = user_path(name)
    if os.sep not in name or path.is_file():
        return run.checkpoint(name)
    return place_of(path, "--checkpoints").path


def _refuse_other_tokens(run: Run, checkpoint: Path) -> None:
    """Raise RefusedError for a checkpoint of a run with other tokens: its weights are not of the same things."""
    other = checkpoint.parent.parent
    if checkpoint.parent.name == FOLDER and tokenizer_hashes(other) != tokenizer_hashes(run.folder):
        raise RefusedError(
            f"{checkpoint} was trained with another {TOKENIZERS} than {run.folder}, so their weights have no mean."
        )
