"""What is told of pipelines and of their stages, of which some train and others leave something else."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from etude.app.results.found import runs_in
from etude.app.results.summary import (
    CONFIG,
    FINISHED,
    INTERRUPTED,
    MONITOR,
    RUNNING,
    WAITING,
    Summary,
    changed_at,
    number_in,
    summary,
)
from etude.app.runs.pipelines import BEGUN, DONE, TRAIN, stages_in
from etude.base.files import json_or_empty
from etude.train.lock import is_locked


def summaries(folder: Path) -> Iterator[Summary]:
    """The runs that lie in `folder`, or the one that it is; the stages of a pipeline after it, in their order."""
    for name, path in runs_in(folder):
        stages = stages_in(path)
        yield of_pipeline(path, stages, name) if stages else summary(path, name)
        yield from (of_stage(path, stage, do, name) for stage, do in stages.items())


def of_stage(folder: Path, name: str, do: str, whose: str = "") -> Summary:
    """What can be told of a stage of the pipeline in a folder."""
    place = folder / name
    known = summary(place) if (place / CONFIG).is_file() else _unknown(place)
    ended = json_or_empty(place / DONE)
    if do != TRAIN:
        known = replace(known, monitor=_first(ended), best=number_in(ended.get("metrics"), _first(ended)))
    whose = whose or folder.resolve().name
    return replace(known, name=f"{whose}/{name}", pipeline=whose, state=_state_of_stage(place, ended, known.state))


def _state_of_stage(place: Path, ended: Mapping[str, object], known: str) -> str:
    """How a stage stands: a training may have ended without its stage having done so."""
    if ended:
        return FINISHED
    if is_locked(place):
        return RUNNING
    if known == FINISHED:
        return INTERRUPTED
    return known if (place / BEGUN).is_file() else WAITING


def _first(ended: Mapping[str, object]) -> str:
    """The first of the metrics of a stage that has ended."""
    metrics = ended.get("metrics")
    return next(iter(metrics), MONITOR) if isinstance(metrics, Mapping) else MONITOR


def of_pipeline(folder: Path, stages: Mapping[str, str], name: str = "") -> Summary:
    """What can be told of a pipeline: how far its stages are."""
    found = [of_stage(folder, stage, do) for stage, do in stages.items()]
    states = [one.state for one in found]
    changed = min(one.changed_seconds for one in found)
    known = replace(_unknown(folder), state=_state_of_all(folder, states), changed_seconds=changed)
    return replace(known, name=name or known.name)


def _state_of_all(folder: Path, states: Sequence[str]) -> str:
    if is_locked(folder):
        return RUNNING
    return FINISHED if set(states) == {FINISHED} else INTERRUPTED


def _unknown(folder: Path) -> Summary:
    """What is told of a folder of which nothing is known but when it has changed."""
    seconds = max(0.0, time.time() - changed_at(folder))
    return Summary(folder.resolve().name, WAITING, 0, 0.0, None, MONITOR, None, seconds, str(folder))
