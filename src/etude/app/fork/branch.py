"""Where a fork leaves its parent: the state at the moment becomes the first checkpoint of a run of its own."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from etude.app.fork.about import as_json
from etude.app.fork.allowed import begins_anew, judge, judge_weights
from etude.app.fork.kept import Kept
from etude.app.fork.start import copy_folder
from etude.app.fork.way import Build, Way, find_way
from etude.app.runs.changes import governing
from etude.app.runs.folder import DATA, remove_tree
from etude.base.config.components import Imported
from etude.base.errors import RefusedError
from etude.base.files import read_json, replace_link, whole_folder, write_bytes
from etude.base.says import Say
from etude.tasks.config import LoadedConfig
from etude.train.interrupt import Interrupts
from etude.train.job import Job
from etude.train.memory.checkpoint import Content, Store, read
from etude.train.memory.checkpoint.content import MANIFEST
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.origin import config_hash, take_in
from etude.train.memory.checkpoint.store import BEST
from etude.train.memory.portable import TASK_FILE, describe_task
from etude.train.memory.state import completed
from etude.train.prepare import prepare
from etude.train.run import Run
from etude.train.watch.record import METRICS

Groups = Sequence[Mapping[str, object]]
"""Options of the groups of an optimizer's parameters, by the names that torch has for them."""
OF_AN_OPTIMIZER = {"learning_rate": "lr"}
"""What torch calls options of an optimizer by another name than a config does."""


def leave(loaded: LoadedConfig, build: Build, folder: Path, source: Path, say: Say) -> None:
    """Make the first checkpoint of the fork in `folder` from the one at the moment, and drop the way to it.

    Raises RefusedError where the state there cannot go on with what the fork has changed.
    """
    _Leave(find_way(loaded, folder, build), source, say).go()


class _Leave:
    """A fork at the step where it leaves its parent."""

    def __init__(self, way: Way, source: Path, say: Say) -> None:
        self._way, self._source, self._say = way, source, say
        stored, self._weights, self._averaged = read(source)
        self._state = completed(stored)
        self._anew: list[str] = []

    def go(self) -> None:
        """Adapt the state, publish it, and drop the way."""
        state, way = self._state, self._way
        job = way.job(way.loaded)
        self._judge_data()
        with _prepared(job) as run:
            self._take_up(run)
            self._adapt(run)
            progress = Kept(state).progress
            is_over = state["ended"] is not None or any(d.reached(progress) for d in run.moments.until)
            best = progress.step if run.validation.feed is None else Kept(state).best_step
            content = self._content(run)
        # What a run writes because it ends belongs to it as long as it has ended.
        rows = (way.shared / METRICS).read_bytes()[: None if is_over else Kept(state).rows]
        self._publish(content, best, rows)
        remove_tree(way.shared)
        self._say(f"The fork trains with its own config from step {content.step:,} on.")

    def _take_up(self, run: Run) -> None:
        """Let the task be of the structure that the parent had come to, with its weights."""
        learner, way = run.learner, self._way
        try:
            is_another = learner.restructure(self._state["part structure"]["name"])
        except LookupError:
            is_another = False  # the fork's network does not grow: it is told below where it differs
        if is_another:
            run.take_up_data()
        judge_weights(self._weights, learner.task.state_dict(), way.changes)
        learner.task.load_state_dict(dict(self._weights))
        learner.average.load(None)  # one that is new begins there

    def _judge_data(self) -> None:
        """Refuse other data in the middle of an epoch."""
        way = self._way
        is_other = self._is_other("train")
        if Kept(self._state).is_between_epochs:
            if is_other:
                self._say("data.train holds other samples than the parent's: the next epoch uses them.")
            return
        judge(way.changes, at_an_epochs_end=False, at=way.until)
        if is_other:
            raise RefusedError(
                f"The content of data.train has changed since {way.about.parent} was trained on it, and {way.until} is "
                f"in the middle of an epoch: put it back, or give --at in whole epochs."
            )

    def _is_other(self, split: str) -> bool:
        """Whether a split holds other samples than the parent's; one that the parent did not have is none."""
        now = self._way.fingerprints().get(split)
        return self._way.about.data.get(split, now) != now

    # -- the state for the fork's config -----------------------------------------------------------------------------

    def _adapt(self, run: Run) -> None:
        """Make the parent's state one that the fork's config goes on from."""
        self._begin_parts_anew(run)
        self._begin_average_anew(run)
        if governing("optimizer", self._way.changes):
            self._adapt_optimizers(run)
        self._forget_the_end(run)
        self._keep_a_best()
        if self._anew:
            self._say(f"Without state in the parent, these start empty at the fork: {', '.join(self._anew)}.")

    def _begin_parts_anew(self, run: Run) -> None:
        other_validation = self._is_other("val")
        for name, part in run.state.parts.items():
            is_gone = begins_anew(name, self._way.changes, other_validation=other_validation)
            if is_gone or f"part {name}" not in self._state:
                self._state[f"part {name}"] = part.state_dict()
                self._anew.append(name)

    def _begin_average_anew(self, run: Run) -> None:
        fresh = run.learner.average.weights()
        if self._averaged is None or fresh is None:
            self._averaged = fresh
        if any(not change.old for change in governing("average", self._way.changes)):
            self._anew.append("average of the weights")

    def _adapt_optimizers(self, run: Run) -> None:
        """Give the optimizers the options of the fork's config, which their states would bring back otherwise."""
        trained = {name for name, p in run.learner.task.named_parameters() if p.requires_grad}
        for slot in run.learner.slots:
            kept, fresh = self._state["optimizers"][slot.name], slot.state_dict()
            kept["state"] = {name: value for name, value in kept["state"].items() if name in trained}
            kept["groups"] = self._groups(kept["groups"], fresh["groups"])

    def _groups(self, kept: Groups, fresh: Groups) -> Groups:
        """The groups' options; an optimizer of the user's own may learn some: of its only changed ones are new."""
        if not isinstance(self._way.loaded.config.optimizer, Imported):
            return fresh
        changed = [change.key for change in self._way.changes if change.key.startswith("optimizer.")]
        words = [key.rpartition(".")[2] for key in changed]
        options = {OF_AN_OPTIMIZER.get(word, word) for word in words}
        return [{**old, **_chosen(new, options)} for old, new in zip(kept, fresh, strict=True)]

    def _forget_the_end(self, run: Run) -> None:
        """Let a changed fork of a run's end go on, whatever had ended the run; an unchanged one has ended too."""
        end = Kept(self._state).end
        if end is None or end.goes_on:
            self._state["ended"] = None
        elif self._way.changes:
            self._state["ended"] = None
            if "stop" in run.state.parts:
                self._state["part stop"] = run.state.parts["stop"].state_dict()

    def _keep_a_best(self) -> None:
        """Let `best` be the fork's first checkpoint where the parent has had a better one since and kept no other."""
        best, step = Kept(self._state).best_step, Kept(self._state).progress.step
        if best is None or self._kept_checkpoint(best).is_dir():
            return
        self._say(
            f"The parent no longer has the checkpoint of step {best:,}, the best of the shared steps: until a "
            f"validation beats it, best is the one of step {step:,}."
        )
        self._state["part stopping"] = {**self._state["part stopping"], "best_step": step}

    def _kept_checkpoint(self, step: int) -> Path:
        return Store(self._way.shared / "checkpoints").path(step)

    # -- the fork's first checkpoint -----------------------------------------------------------------------------------

    def _content(self, run: Run) -> Content:
        order = list(run.learner.task.state_dict())
        manifest = read_json(self._source / MANIFEST)  # as was verified
        state = dict(self._state)
        return Content.capture(
            checkpoint_step(self._source),
            model=_in_order(order, self._weights),
            averaged=None if self._averaged is None else _in_order(order, self._averaged),
            optimizers=state.pop("optimizers"),
            state=state,
            extra={TASK_FILE: describe_task(run.learner.task)},
            about={
                "config": config_hash(self._way.loaded.data),
                "versions": manifest.get("versions", {}),
                "metrics": manifest.get("metrics", {}),
            },
        )

    def _publish(self, content: Content, best: int | None, rows: bytes) -> None:
        """Move the fork's own record and checkpoints into its folder, the checkpoints last and in one move."""
        way = self._way
        with whole_folder(way.folder / "checkpoints", "write") as part:
            store = Store(part)
            store.save(content, best=False)
            store.close()
            take_in(way.folder, [str(content.about["config"])])
            if best is not None:
                kept = self._kept_checkpoint(best)
                if best != content.step:
                    copy_folder(kept, part / kept.name)
                    take_in(way.folder, [str(read_json(kept / MANIFEST).get("config"))])
                replace_link(part / BEST, kept.name)
            write_bytes(way.folder / METRICS, rows)
            write_bytes(way.folder / DATA, (way.shared / DATA).read_bytes())
            replace(way.about, step=content.step, changes=as_json(way.changes), begun_anew=self._anew).write(way.folder)


@contextmanager
def _prepared(job: Job) -> Iterator[Run]:
    """The parts of a run that takes no step; nothing is said of them."""
    run = prepare(replace(job, say=lambda _: None), Interrupts())
    try:
        yield run
    finally:
        run.saves.keeper.close()
        job.train.close()


def _in_order(names: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] for name in names}


def _chosen(options: Mapping[str, object], names: Collection[str]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name in names}
