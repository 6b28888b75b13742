"""Saved outputs: for each sample of a split what the best weights made of it, in a file below `outputs/`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from etude.base.errors import StorageError
from etude.base.files import json_or_empty, make_folder, write_json
from etude.base.says import Say
from etude.callbacks.columns import columns_of
from etude.callbacks.tables import Columns, Table, ending, open_table
from etude.data.feeds.feed import Feed
from etude.train.memory.checkpoint.naming import FOLDER, PREFIX, checkpoint_step, step_name
from etude.train.memory.checkpoint.store import BEST
from etude.train.task import Task
from etude.train.watch.callback import Callback, RunView
from etude.train.world import ALONE, World

OUTPUTS, INDEX = "outputs", "saved.json"
BEST_ONLY, EVERY_VALIDATION = "best", "validation"

Beside = Callable[[str, object], Columns]
"""For a split and a batch, columns that the task does not know, such as the raw texts."""


class SavedOutputs(Callback):
    """Writes the outputs of each validation that improves, or of each, and those of a test.

    A row a sample, a few thousand of them in memory. What a validation wrote is seen as `outputs/val.parquet` once its
    checkpoint is the best on the disk, so that the file and `checkpoints/best` never differ for longer than a step
    takes, whenever the run is killed. `outputs/saved.json` tells of which step each split's file is.
    """

    def __init__(
        self,
        folder: Path,
        splits: Sequence[str],
        *,
        every: str = BEST_ONLY,
        say: Say = print,
        beside: Beside = lambda _split, _batch: {},
    ) -> None:
        self._run = folder
        self._folder = folder / OUTPUTS
        self.splits = tuple(splits)
        self._every = every
        self._say = say
        self._beside = beside
        self._table: Table | None = None
        self._split = ""
        self._pending: set[int] = set()

    # -- a pass --------------------------------------------------------------------------------------------------

    def begin(self, split: str) -> None:
        """Begin a file for a pass over `split`; where that cannot be, it is told of, and the pass goes on without."""
        self.abandon()
        if split in self.splits:
            with self._telling():
                make_folder(self._folder)
                self._split, self._table = split, open_table(self._folder / f".{split}.partial")

    def add(self, task: Task, batch: object, outputs: object) -> None:
        """Add the samples of a batch."""
        if self._table is not None:
            with self._telling():
                columns = columns_of(task, batch, outputs, self._table.rows)
                self._table.add({**columns, **self._beside(self._split, batch)})

    def finish(self, step: int, name: str | None = None) -> None:
        """Show the file of the pass, made with the weights of `step`, under `name` (the split's, unless given)."""
        table, self._table = self._table, None
        if table is None:
            return
        if not table.rows:
            table.abandon()
            return
        place = self._folder / f"{name or self._split}{ending()}"
        with self._telling(table):
            table.finish(place)
            if name is None:
                self._note(self._split, place, step)

    def abandon(self) -> None:
        """Leave no trace of a pass that is not finished."""
        if self._table is not None:
            self._table.abandon()
            self._table = None

    def lacks(self, split: str, best: int) -> bool:
        """Whether a file of `split` with the weights of the step `best` is asked for and not there."""
        by_step = split == "val" and self._every == EVERY_VALIDATION
        return split in self.splits and not by_step and self.saved(split) != best

    def saved(self, split: str) -> int | None:
        """The step whose weights made the file of `split`; None where there is none."""
        entry = self._index().get(split)
        if not isinstance(entry, dict) or not (self._folder / str(entry.get("file"))).is_file():
            return None
        return int(entry["step"])

    # -- events --------------------------------------------------------------------------------------------------

    def on_load(self, run: RunView, folder: object) -> None:
        """Show what the best checkpoint's validation wrote."""
        del run, folder
        self._settle()

    def on_fit_start(self, run: RunView) -> None:
        """Remove what a process that was killed left behind."""
        del run
        self._settle()
        self.abandon()
        for path in self._folder.glob(".val*"):
            with suppress(OSError):
                path.unlink()

    def on_validation_start(self, run: RunView) -> None:
        """Begin the validation's file, unless it is not known yet what is predicted: then the run's end writes it."""
        if not run.task.predicts_late:
            self.begin("val")

    def on_validation_batch_end(self, run: RunView, batch: object, outputs: object) -> None:
        """Add its samples."""
        self.add(run.task, batch, outputs)

    def on_validation_end(self, run: RunView, metrics: Mapping[str, float]) -> None:
        """Keep the file where it was the best, or where every validation's is asked for."""
        del metrics
        step = run.progress.step
        if self._every == EVERY_VALIDATION:
            self.finish(step, f"val-{step_name(step)}")
        elif self._table is not None and run.best_step == step:
            self.finish(step, f".val-{step_name(step)}")
            self._pending.add(step)
        else:
            self.abandon()

    def on_step_end(self, run: RunView, outcome: object) -> None:
        """Show a validation's file once its checkpoint is there."""
        del run, outcome
        if self._pending:
            self._settle()

    def on_fit_end(self, run: RunView, reason: str) -> None:
        """Show the last one's."""
        del run, reason
        self._settle()

    def on_test_start(self, run: RunView) -> None:
        """Begin the test's file."""
        del run
        self.begin("test")

    def on_test_batch_end(self, run: RunView, batch: object, outputs: object) -> None:
        """Add its samples."""
        self.add(run.task, batch, outputs)

    def on_test_end(self, run: RunView, metrics: Mapping[str, float]) -> None:
        """Show the file."""
        del metrics
        self.finish(run.progress.step if run.weights_step is None else run.weights_step)

    def on_exception(self, run: RunView, error: BaseException) -> None:
        """Leave no file that is not whole."""
        del run, error
        self.abandon()

    # -- files ---------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Show the file of the best checkpoint on the disk, and remove those of earlier ones."""
        try:
            best = checkpoint_step(self._run / FOLDER / BEST)
        except ValueError:
            return
        if self._pending and best < min(self._pending):
            return  # the checkpoint that is waited for is still being written
        for path in sorted(self._folder.glob(f".val-{PREFIX}*")):
            with self._telling(), suppress(FileNotFoundError):
                self._settle_one(path, best)
        self._pending = {step for step in self._pending if step > best}

    def _settle_one(self, path: Path, best: int) -> None:
        step = int(path.stem.rpartition("-")[2])
        if step == best:
            shown = self._folder / f"val{path.suffix}"
            path.replace(shown)
            self._note("val", shown, step)
        elif step < best:
            path.unlink()

    def _note(self, split: str, place: Path, step: int) -> None:
        write_json(self._folder / INDEX, {**self._index(), split: {"file": place.name, "step": step}})

    def _index(self) -> dict[str, Any]:
        return json_or_empty(self._folder / INDEX)

    @contextmanager
    def _telling(self, table: Table | None = None) -> Iterator[None]:
        """Go on without this pass's file where storage fails, and say so: it is no reason to end a run."""
        try:
            yield
        except BaseException as error:
            if (failed := table or self._table) is not None:
                failed.abandon()
            self._table = None
            if not isinstance(error, StorageError):
                raise
            self._say(f"{error} The outputs of this pass are not saved; training continues.")


Pass = Callable[[str, Feed, Callable[[object, object], None]], object]
"""Evaluates a split's feed, telling of each batch and its outputs."""


def complete(
    saved: SavedOutputs,
    task: Task,
    best: int,
    feeds: Mapping[str, Callable[[], Feed]],
    *,
    load_best: Callable[[], object],
    run_pass: Pass,
    say: Say,
    world: World = ALONE,
) -> None:
    """Write, at the end of a run, what is not there of step `best`: the training split, and a validation's that a
    run which only now asked for it did not write. The task keeps its weights.

    Of several ranks in a `world` all do the passes, and the first writes.
    """
    wanted = world.gather([split for split in feeds if saved.lacks(split, best)])[0]
    if not wanted:
        return
    kept = {name: value.clone() for name, value in task.state_dict().items()}
    try:
        load_best()
        for split in wanted:
            if world.is_first:
                say(f"Saving the outputs of the {split} split with the best weights (step {best:,}).")
                saved.begin(split)
            _pass_over(saved, task, split, feeds[split](), run_pass)
            saved.finish(best)
    finally:
        task.load_state_dict(kept)
        saved.abandon()


def _pass_over(saved: SavedOutputs, task: Task, split: str, feed: Feed, run_pass: Pass) -> None:
    try:
        run_pass(split, feed, lambda batch, outputs: saved.add(task, batch, outputs))
    finally:
        feed.close()
