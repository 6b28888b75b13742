"""The way of a fork to its step: the parent's steps with the parent's config, then the state for the changed one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from etude.app.build import imported_files
from etude.app.fork.allowed import begins_anew, judge, judge_weights
from etude.app.fork.plan import FORK, as_json, changed, plain_state, progress_of, read_fork
from etude.app.fork.start import PARENTS_ROWS, SHARED, copy_folder
from etude.app.runs.changes import Change
from etude.app.runs.diff import by_step, first_difference
from etude.app.runs.folder import CONFIG, DATA, has_checkpoint, remove_tree
from etude.base.config.components import Imported
from etude.base.config.loading import Loaded
from etude.base.durations import Duration
from etude.base.errors import RefusedError, StorageError
from etude.base.files import (
    fsync_folder,
    make_folder,
    read_json,
    replace_link,
    sha256_of,
    storage,
    write_bytes,
    write_json,
)
from etude.tasks.config import Config, LoadedConfig, load_config
from etude.train.end import End
from etude.train.fit import fit
from etude.train.interrupt import Interrupts
from etude.train.job import Job
from etude.train.memory.checkpoint import Content, Store, read
from etude.train.memory.checkpoint.content import MANIFEST
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.store import BEST
from etude.train.memory.portable import TASK_FILE, describe_task
from etude.train.memory.state import completed
from etude.train.prepare import prepare
from etude.train.run import Run
from etude.train.watch.record import METRICS, read_rows

Say = Callable[[str], None]
Build = Callable[[Loaded[Config], Path, Say], Job]
PARTIAL = ".checkpoints.partial"


def is_underway(folder: Path) -> bool:
    """Whether the run in `folder` is a fork that has not come to its step yet."""
    return (folder / FORK).is_file() and not has_checkpoint(folder)


def branch(loaded: Loaded[Config], folder: Path, build: Build, say: Say) -> None:
    """Bring a fork to the step where it leaves its parent; a run that is none, or has come there, is left as it is.

    Interrupted anywhere and called again it goes on. Raises RefusedError where a change cannot be taken, or the
    parent's steps cannot be.
    """
    shared = folder / SHARED
    if not is_underway(folder):
        if (folder / FORK).is_file() and shared.is_dir():
            remove_tree(shared)  # a kill came between the last two moves
        return
    about = read_fork(folder)
    if not (shared / CONFIG).is_file():
        raise StorageError(f"{folder} is a fork without a checkpoint or the way to one; remove it and fork again.")
    before = load_config(shared / CONFIG, {"run.dir": str(loaded.config.run.dir)})
    changes = changed(before, LoadedConfig(loaded.config, loaded.data))
    _Way(loaded, before, folder, about, changes, build, say).go()


class _Way:
    """One fork on its way."""

    def __init__(
        self,
        loaded: Loaded[Config],
        before: LoadedConfig,
        folder: Path,
        about: dict[str, Any],
        changes: Sequence[Change],
        build: Build,
        say: Say,
    ) -> None:
        self._loaded, self._before, self._folder = loaded, before, folder
        self._about, self._changes = about, changes
        self._build, self._say = build, say
        self._shared = folder / SHARED
        self._until = Duration.parse(about["until"])

    def go(self) -> None:
        """Share, then leave."""
        judge(self._changes, at_an_epochs_end=True, at=self._until)
        self._judge_weights()
        source = self._newest()
        if source is None or not self._until.reached(progress_of(plain_state(source))):
            self._share()
            source = self._newest()
            assert source is not None
        self._leave(source)

    def _newest(self) -> Path | None:
        return Store(self._shared / "checkpoints").newest_sound(self._say)

    def _judge_weights(self) -> None:
        """Find out before the way is gone that the changed network does not fit."""
        if any("weights" in change.meaning.governs for change in self._changes):
            before, after = (self._made(which).task.state_dict() for which in (self._before, self._loaded))
            judge_weights(before, after, self._changes)

    def _made(self, loaded: Loaded[Config], say: Say = lambda _: None) -> Job:
        """The job of a config in the folder of the shared steps, whatever data were there before."""
        (self._shared / DATA).unlink(missing_ok=True)
        return self._build(loaded, self._shared, say)

    def _fingerprints(self) -> Mapping[str, Any]:
        return read_json(self._shared / DATA)

    # -- the parent's steps ------------------------------------------------------------------------------------------

    def _share(self) -> None:
        """Take the parent's steps up to the moment, as the parent would."""
        begun = self._about["from_checkpoint"] or 0
        self._refuse_other_code()
        job = replace(self._made(self._before, self._say), pause=self._until, loggers=())
        for name, content in self._fingerprints().items():
            if self._about["data"].get(name, content) != content:
                raise RefusedError(
                    f"The content of data.{name} (or how it is tokenised) has changed since {self._about['parent']} "
                    f"was trained on it, so its steps cannot be taken again; put it back, or give --at a step of which "
                    f"it has a checkpoint."
                )
        result = fit(job)
        if not self._until.reached(result.progress):
            raise RefusedError(
                f"{self._about['parent']} ends at step {result.progress.step:,} ({result.reason}), before "
                f"{self._until}: give an earlier --at."
            )
        self._compare(begun)

    def _refuse_other_code(self) -> None:
        for file in imported_files(self._before.config):
            if self._about["code"].get(str(file), digest := sha256_of(file)) != digest:
                raise RefusedError(
                    f"{file} has changed since {self._about['parent']} was trained with it, so its steps cannot be "
                    f"taken again; put it back, or give --at a step of which it has a checkpoint."
                )

    def _compare(self, begun: int) -> None:
        """Say where the steps that were taken again are not the parent's after all, and why that may be."""
        rows = [by_step(read_rows(self._shared / name, self._say)) for name in (PARENTS_ROWS, METRICS)]
        theirs, ours = ({step: row for step, row in found.items() if step > begun} for found in rows)
        apart = first_difference(theirs, ours)
        self._about["repeated"] = apart is None if theirs.keys() & ours.keys() else None
        if apart is not None:
            key, old, new = apart.values[0]
            self._say(
                f"The steps could not be repeated to the bit: at step {apart.step:,} {key} is {new} and was {old}. The "
                f"parent took them on another machine, with other versions, or when max_duration was another; the "
                f"fork shares its steps to {begun:,}, and goes on from here with its own."
            )

    # -- the fork's first checkpoint -----------------------------------------------------------------------------------

    def _leave(self, source: Path) -> None:
        """Write the state at the moment as the first checkpoint of the fork's own run, and drop the way."""
        stored, weights, averaged = read(source)
        state = completed(stored)
        job = self._made(self._loaded)
        self._judge_data(state["position"])
        job.task.load_state_dict(dict(weights))  # an average that is new begins there
        run = prepare(replace(job, say=lambda _: None), Interrupts())
        try:
            self._adapt(state, run)
            if averaged is None or run.learner.average.weights() is None:
                averaged = run.learner.average.weights()
            progress = progress_of(state)
            is_over = state["ended"] is not None or any(d.reached(progress) for d in run.moments.until)
            best = progress.step if run.validation.feed is None else state["part stopping"]["best_step"]
            content = self._content(source, state, run, weights, averaged)
        finally:
            run.saves.keeper.close()
            job.train.close()
        # What a run writes because it ends belongs to it as long as it has ended.
        rows = (self._shared / METRICS).read_bytes()[: None if is_over else int(state["record"]["bytes"])]
        self._publish(content, best, rows)

    def _judge_data(self, position: Any) -> None:
        """Refuse other data in the middle of an epoch."""
        now, before = self._fingerprints(), self._about["data"]
        other = before.get("train", now["train"]) != now["train"]
        if position is None:
            if other:
                self._say("data.train holds other samples than the parent's: the next epoch has their order.")
            return
        judge(self._changes, at_an_epochs_end=False, at=self._until)
        if other:
            raise RefusedError(
                f"The content of data.train has changed since {self._about['parent']} was trained on it, and "
                f"{self._until} is in the middle of an epoch: put it back, or give --at in whole epochs."
            )

    def _adapt(self, state: dict[str, Any], run: Run) -> None:
        """Make the parent's state one that the fork's config goes on from."""
        now, before = self._fingerprints(), self._about["data"]
        other = before.get("val", now.get("val")) != now.get("val")
        anew = []
        for name, part in run.state.parts.items():
            kept = f"part {name}" in state and not begins_anew(name, self._changes, other_validation=other)
            if not kept:
                state[f"part {name}"] = part.state_dict()
                anew.append(name)
        if any("average" in change.meaning.governs and not change.old for change in self._changes):
            anew.append("average of the weights")
        if any("optimizer" in change.meaning.governs for change in self._changes):
            for slot in run.learner.slots:
                self._adapt_optimizer(state["optimizers"][slot.name], slot.state_dict(), run)
        self._forget_the_end(state, run)
        self._keep_a_best(state)
        self._about["begun_anew"] = anew
        if anew:
            self._say(
                f"Begun anew at the fork, since the parent has nothing that they could go on from: {', '.join(anew)}."
            )

    def _forget_the_end(self, state: dict[str, Any], run: Run) -> None:
        """Let a changed fork of a run's end go on, whatever had ended the run; an unchanged one has ended too."""
        end = End.read(state)
        if end is None or end.goes_on:
            state["ended"] = None
        elif self._changes:
            state["ended"] = None
            if "stop" in run.state.parts:
                state["part stop"] = run.state.parts["stop"].state_dict()

    def _keep_a_best(self, state: dict[str, Any]) -> None:
        """Let `best` be the fork's first checkpoint where the parent has had a better one since and kept no other."""
        stopping, step = state.get("part stopping") or {}, state["progress"]["step"]
        best = stopping.get("best_step")
        if best is None or Store(self._shared / "checkpoints").path(best).is_dir():
            return
        self._say(
            f"The parent does not keep the checkpoint of step {best:,} any more, the best of the shared steps: until a "
            f"validation beats it, best is the one of step {step:,}."
        )
        state["part stopping"] = {**stopping, "best_step": step}

    def _adapt_optimizer(self, state: dict[str, Any], fresh: Mapping[str, Any], run: Run) -> None:
        """Give the optimizer the options of the fork's config, which its state would bring back otherwise."""
        trained = {name for name, p in run.learner.task.named_parameters() if p.requires_grad}
        state["state"] = {name: value for name, value in state["state"].items() if name in trained}
        if not isinstance(self._loaded.config.optimizer, Imported):
            state["groups"] = fresh["groups"]
            return
        # An optimizer of the user's own may keep what it learns among its options: only what was changed is set.
        given = {key.rpartition(".")[2] for key in (c.key for c in self._changes) if key.startswith("optimizer.")}
        keys = {"lr" if key == "learning_rate" else key for key in given}
        for old, new in zip(state["groups"], fresh["groups"], strict=True):
            old.update({key: new[key] for key in keys if key in new})

    def _content(
        self,
        source: Path,
        state: dict[str, Any],
        run: Run,
        weights: Mapping[str, Any],
        averaged: Mapping[str, Any] | None,
    ) -> Content:
        order = run.learner.task.state_dict()
        manifest = read_json(source / MANIFEST)  # as was verified
        optimizers = state.pop("optimizers")
        return Content.capture(
            checkpoint_step(source),
            model={name: weights[name] for name in order},
            averaged=None if averaged is None else {name: averaged[name] for name in order},
            optimizers=optimizers,
            state=state,
            extra={TASK_FILE: describe_task(run.learner.task)},
            about={
                "config": sha256(json.dumps(self._loaded.data, sort_keys=True, default=str).encode()).hexdigest(),
                "versions": manifest.get("versions", {}),
                "metrics": manifest.get("metrics", {}),
            },
        )

    def _publish(self, content: Content, best: int | None, rows: bytes) -> None:
        """Move the fork's own record and checkpoints into its folder, the checkpoints last and in one move."""
        folder, partial = self._folder, self._folder / PARTIAL
        if partial.exists():
            remove_tree(partial)
        make_folder(partial)
        store = Store(partial)
        store.save(content, best=False)
        store.close()
        if best is not None:
            kept = Store(self._shared / "checkpoints").path(best)
            if best != content.step:
                copy_folder(kept, partial / kept.name)
            replace_link(partial / BEST, kept.name)
        write_bytes(folder / METRICS, rows)
        write_bytes(folder / DATA, (self._shared / DATA).read_bytes())
        self._about |= {"step": content.step, "changes": as_json(self._changes)}
        write_json(folder / FORK, self._about)
        with storage("write", folder / "checkpoints"):
            partial.rename(folder / "checkpoints")
            fsync_folder(folder)
        remove_tree(self._shared)
        self._say(f"The fork goes its own way from step {content.step:,} on.")
