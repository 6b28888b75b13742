"""A pipeline: its stages in order, of which those are run that are missing or have changed, and no others."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from etude.app.runs.pipelines import DONE, PIPELINE, refuse_sweep
from etude.app.stages.depends import made_of
from etude.app.stages.done import (
    DAMAGED,
    FINISHED,
    INTERRUPTED,
    STALE,
    Standing,
    begin,
    finish,
    left_by,
    mends_itself,
    set_aside,
    standing,
    standing_of,
)
from etude.app.stages.graph import by_name, following
from etude.app.stages.node import Node
from etude.app.stages.shared import Keeping, keeping_of
from etude.app.stages.stage import Artifact, Artifacts
from etude.app.stages.watched import watched
from etude.base.config.writing import toml
from etude.base.errors import ConfigError, RefusedError
from etude.base.files import make_folder, remove, write_json, write_text
from etude.base.near import did_you_mean
from etude.base.says import Say, surely
from etude.base.signals import BEFORE_THE_END
from etude.callbacks.line import span
from etude.tasks.run_files import CONFIG
from etude.train.interrupt import requeued
from etude.train.lock import claimed

Around = Callable[[Path], AbstractContextManager[None]]
"""Stands around a stage in its folder, to tell of an interruption."""


@dataclass(frozen=True)
class Choice:
    """Which stages are run."""

    begin: str = ""
    """Start at this one: those before it are used as they are."""
    only: str = ""
    """This one alone."""
    force: str = ""
    """Run this one and all that depend on it, even if nothing has changed."""


class Report(NamedTuple):
    """What a stage has come to."""

    node: Node
    ran: bool
    standing: Standing


@dataclass(frozen=True)
class Pipeline:
    """Stages in one folder."""

    folder: Path
    nodes: Sequence[Node]
    """In order: each after those that it takes something from."""
    config: Mapping[str, Any]
    """The composed config, as plain values."""
    path: Path | None = None
    requeue: Sequence[str] = BEFORE_THE_END
    notes: Sequence[str] = field(default_factory=tuple)

    def run(
        self, say: Say, choice: Choice | None = None, around: Around = lambda _: nullcontext()
    ) -> tuple[dict[str, Artifact], list[Report]]:
        """Run the stages that are missing or have changed; what all have left, and how each came to it.

        Raises RefusedError where a stage that is to be used as it is has not ended.
        """
        say, choice = surely(say), choice or Choice()
        self._check(choice)
        refuse_sweep(self.folder)
        forced = set(following(self.nodes, [choice.force] if choice.force else []))
        with requeued(self.requeue), claimed(self.folder):
            self._describe()
            return self._run(say, choice, forced, around)

    def _run(
        self, say: Say, choice: Choice, forced: set[str], around: Around
    ) -> tuple[dict[str, Artifact], list[Report]]:
        artifacts: dict[str, Artifact] = {}
        reports, keeping = [], keeping_of(self.folder)
        for number, node in enumerate(self.nodes, 1):
            if not self._is_wanted(node, choice):
                used = self._used(node, artifacts, say, needed=self._is_needed(node, choice))
                reports += used[:1]
                artifacts |= {report.node.name: report.standing.artifact for report in used if report.standing.artifact}
                continue
            head = f"Stage {number} of {len(self.nodes)}, {node.name}"
            with around(node.folder):
                report = _one(node, artifacts, head, say, keeping, forced=node.name in forced)
            reports.append(report)
            assert report.standing.artifact is not None
            artifacts[node.name] = report.standing.artifact
        return artifacts, reports

    def _is_wanted(self, node: Node, choice: Choice) -> bool:
        """Whether a stage is run if need be."""
        if choice.only:
            return node.name == choice.only
        names = list(by_name(self.nodes))
        return not choice.begin or names.index(node.name) >= names.index(choice.begin)

    def _is_needed(self, node: Node, choice: Choice) -> bool:
        """Whether a stage that is not run must be done."""
        return not choice.only or node.name in by_name(self.nodes)[choice.only].stage.inputs()

    def _used(self, node: Node, artifacts: Artifacts, say: Say, *, needed: bool) -> list[Report]:
        """A stage that is used as it is. Raises RefusedError where it is needed and not done."""
        found = left_by(node)
        if found.state != FINISHED:
            if not needed:
                return []
            why = f" ({found.why})" if found.why else ""
            raise RefusedError(
                f'The stage "{node.name}" must be done before, but is {found.state}{why}: run it first, without the '
                f"flag or by --only {node.name}."
            )
        if needed and artifacts.keys() >= set(node.stage.inputs()):
            now = standing_of(node, artifacts)
            if now.state == STALE:
                say(f"Stage {node.name} is used as it is, although {now.why}.")
        return [Report(node, ran=False, standing=found)]

    def _check(self, choice: Choice) -> None:
        known = by_name(self.nodes)
        for flag, name in (("from", choice.begin), ("only", choice.only), ("force-from", choice.force)):
            if name and name not in known:
                hint = did_you_mean(name, known, f"the stages are {', '.join(known)}.")
                raise ConfigError(f'--{flag} names "{name}", which is not a stage; {hint}')
        if choice.only and (choice.begin or choice.force):
            raise ConfigError("--only runs one stage: leave out --from and --force-from, or --only.")

    def _describe(self) -> None:
        """Write the composed config, and what the folder is."""
        write_json(self.folder / PIPELINE, {"stages": {node.name: node.do for node in self.nodes}})
        write_text(self.folder / CONFIG, toml(self.config))


def _one(node: Node, artifacts: Artifacts, head: str, say: Say, keeping: Keeping, *, forced: bool) -> Report:
    """Run a stage, unless it is done."""
    made = made_of(node, artifacts)
    found = standing(node, made)
    if found.state == FINISHED and not forced:
        return Report(node, ran=False, standing=found)
    with keeping.held(node, made) as place:
        found = standing(node, made)
        if found.state == FINISHED and not forced:
            say(f"{head}: is shared with another trial, which has run it.")
            return Report(node, ran=False, standing=found)
        say(f"{head}: {_why(found, forced=forced)}")
        if forced or not _goes_on(node, found):
            kept = set_aside(place)
            if kept is not None:
                say(f"{place} is kept as {kept.name}.")
        make_folder(place)
        return _ran(node, made, artifacts, head, say)


def _ran(node: Node, made: Mapping[str, Any], artifacts: Artifacts, head: str, say: Say) -> Report:
    """What a stage has come to that is run in its folder."""
    begin(node, made)
    begun = time.perf_counter()
    with claimed(node.folder):
        remove(node.folder / DONE)
        with watched(node, say) as watch:
            left = node.stage.run(node.folder, {name: artifacts[name] for name in node.stage.inputs()}, say)
            watch.ended(left)
        seconds = time.perf_counter() - begun
        artifact = finish(node, left, made, seconds)
    say(f"{head}: done in {span(seconds)}.")
    return Report(node, ran=True, standing=Standing(FINISHED, artifact=artifact, record={"seconds": seconds}))


def _goes_on(node: Node, found: Standing) -> bool:
    """Whether a stage goes on in its folder with what is there."""
    return found.state == INTERRUPTED or (found.state == DAMAGED and mends_itself(node))


def _why(found: Standing, *, forced: bool) -> str:
    """Why a stage is run, as a sentence."""
    if forced:
        return "runs, as was asked for."
    if found.state == INTERRUPTED:
        return "goes on where it was interrupted."
    return f"runs again, since {found.why}." if found.why else "runs."
