"""Runs, or groups of seeds, side by side: their configs, their metrics, and how sure a difference is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, final

from etude.app.results.answers import MEASURES, Shared, answers_of, measurable
from etude.app.results.found import runs_in
from etude.app.results.groups import Group, fingerprint, telling_keys
from etude.app.results.values import Values
from etude.app.results.where import MISSING
from etude.app.runs.pipelines import run_in
from etude.base.errors import ConfigError, StorageError
from etude.base.modes import mode_of
from etude.metrics.paired_text import paired_scores
from etude.metrics.significance import CONFIDENCE, Difference, Interval, paired_bootstrap, welch
from etude.metrics.text import TEXT_METRICS
from etude.train.lock import refuse_links_out


@final
@dataclass(frozen=True)
class Judged:
    """A metric of two runs over the same samples."""

    metric: str
    first: float
    second: float
    difference: Difference


@final
@dataclass(frozen=True)
class Pairing:
    """A run or a group beside the first."""

    of: Group
    over_seeds: Difference | None
    """The monitored metric over seeds; None where that is not the same, or one side has but one run."""
    split: str = ""
    samples: int = 0
    left_out: int = 0
    judged: Sequence[Judged] = ()
    """Metrics of the saved outputs of the best run of each."""
    note: str = ""
    """Why there is none of them."""


@final
@dataclass(frozen=True)
class SideBySide:
    """Several runs or groups, the first of which the others are compared with."""

    groups: Sequence[Group]
    config: dict[str, list[Any]] = field(default_factory=dict)
    """By key, what stands in each, where they differ in what changes numbers."""
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    """By name, what each has measured: the mean where it is several runs."""
    pairings: Sequence[Pairing] = ()

    @property
    def monitor(self) -> str:
        """The metric that decides."""
        return self.groups[0].monitor


def group_of(place: Path, *, with_seeds: bool) -> Group:
    """The runs that an argument stands for: a run, a folder of runs, or a run with all seeds of it beside it.

    Raises StorageError where there are none, ConfigError for a folder of several configs.
    """
    if not place.is_dir():
        raise StorageError(f"{place} is not a folder; give run folders, or folders of the runs of one config.")
    place = run_in(place)
    found = [Values.of(name, path) for name, path in runs_in(place)]
    if not found:
        raise StorageError(f"{place} is no run folder, and holds none.")
    if found[0].folder == place:
        return _of_run(found[0], place, with_seeds=with_seeds)
    _refuse_several(found, place)
    return Group(found, place.resolve().name)


def _of_run(run: Values, place: Path, *, with_seeds: bool) -> Group:
    refuse_links_out(place)
    return _with_seeds(run, place) if with_seeds else Group([run])


def _refuse_several(found: Sequence[Values], place: Path) -> None:
    """Raise ConfigError for runs of more than one config."""
    if len({fingerprint(run.config) for run in found}) > 1:
        raise ConfigError(
            f"{place} holds runs of several configs, such as {found[0].summary.name} and {found[-1].summary.name}: "
            f"etude runs {place} --group lists them; give one run of each and --group."
        )


def _with_seeds(run: Values, place: Path) -> Group:
    """A run and those beside it that differ in their seed alone."""
    parent = Path(place.absolute()).parent
    beside = [Values.of(path.name, path) for _, path in runs_in(parent) if path.parent == parent]
    wanted = fingerprint(run.config)
    return Group([one for one in beside if fingerprint(one.config) == wanted] or [run])


def side_by_side(groups: Sequence[Group], *, split: str, resamples: int, seed: int) -> SideBySide:
    """Compare groups with the first of them, by the saved outputs of a split where both have saved them."""
    bootstrap = Bootstrap(split, resamples, seed)
    return SideBySide(
        groups,
        config={key: _common(groups, key) for key in telling_keys(groups)},
        metrics={name: _means(groups, name) for name in _metrics(groups)},
        pairings=[_pair(groups[0], other, bootstrap) for other in groups[1:]],
    )


class Bootstrap(NamedTuple):
    """By which saved outputs runs are compared, and how often these are drawn from."""

    split: str
    resamples: int
    seed: int


def _common(groups: Sequence[Group], key: str) -> list[object]:
    return [_plain(group.common(key)) for group in groups]


def _means(groups: Sequence[Group], name: str) -> list[float | None]:
    return [_mean(group, name) for group in groups]


def _metrics(groups: Sequence[Group]) -> list[str]:
    """The metrics of val and test that any run has."""
    runs = chain.from_iterable(group.runs for group in groups)
    names = dict.fromkeys(chain.from_iterable(run.metrics for run in runs))
    return [name for name in names if not name.startswith("train/")]


def _plain(value: object) -> object:
    return None if value is MISSING else value


def _mean(group: Group, name: str) -> float | None:
    numbers = group.numbers(name)
    return math.fsum(numbers) / len(numbers) if numbers else None


def _pair(first: Group, second: Group, bootstrap: Bootstrap) -> Pairing:
    """Compare a group with the first: over seeds, and over the samples that the best run of each has answered."""
    pairing = Pairing(second, _over_seeds(first, second), bootstrap.split)
    runs = [_shown_for(group) for group in (first, second)]
    answers = [answers_of(run.folder, bootstrap.split) for run in runs]
    lacking = [run.summary.name for run, found in zip(runs, answers, strict=True) if found is None]
    if lacking:
        return replace(pairing, note=_lacking(lacking, bootstrap.split))
    shared = Shared.of(*filter(None, answers))
    judged = [_judge(shared, name, bootstrap) for name in measurable([*_of_both(*runs), "loss"])]
    kept = list(filter(None, judged))
    return replace(pairing, samples=len(shared.first), left_out=shared.left_out, judged=kept)


def _over_seeds(first: Group, second: Group) -> Difference | None:
    """The difference of the monitored metric over seeds; None where there are none, or two metrics."""
    if first.monitor != second.monitor or min(len(first.runs), len(second.runs)) == 1:
        return None
    return welch(first.numbers("best"), second.numbers("best"))


def _shown_for(group: Group) -> Values:
    """The run whose outputs stand for a group: the best."""
    return group.best or group.runs[0]


def _of_both(first: Values, second: Values) -> list[str]:
    return [name for name in first.metrics if name in second.metrics]


def _lacking(names: Sequence[str], split: str) -> str:
    return (
        f"{' and '.join(names)} saved no outputs of {split}, so the samples cannot be compared one by one: "
        f'train with train.save_outputs = "{split}".'
    )


def _judge(shared: Shared, metric: str, bootstrap: Bootstrap) -> Judged | None:
    if metric in TEXT_METRICS:
        return _judge_texts(shared, metric, bootstrap.resamples)
    sums = shared.both(MEASURES[metric])
    if sums is None:
        return None
    difference = paired_bootstrap(*sums, resamples=bootstrap.resamples, seed=bootstrap.seed)
    return Judged(metric, sums[0].value, sums[1].value, difference)


def _judge_texts(shared: Shared, metric: str, resamples: int) -> Judged | None:
    texts = shared.texts()
    if texts is None:
        return None
    scores = paired_scores(metric, *texts, resamples=resamples)
    unknown = Interval(math.nan, math.nan)  # sacreBLEU gives one for each system alone
    return Judged(metric, scores.first, scores.second, Difference(scores.second - scores.first, unknown, scores.p))


# -- in words ----------------------------------------------------------------------------------------------------------


def verdict(found: SideBySide, pairing: Pairing) -> str:
    """How sure it is which of two is better, in a sentence: over seeds where there are, else over samples."""
    names = _names(found.groups[0], pairing.of)
    short = found.monitor.rpartition("/")[2]
    if pairing.over_seeds is not None and not math.isnan(pairing.over_seeds.p):
        counts = f"{len(found.groups[0].runs)} and {len(pairing.of.runs)} seeds"
        return _sentence(names, found.monitor, found.groups[0].runs[0].mode, pairing.over_seeds, f"over {counts}")
    judged = next((one for one in pairing.judged if one.metric == short), None)
    if judged is None or math.isnan(judged.difference.p):
        return (
            f"How sure the difference between {names[0]} and {names[1]} is cannot be told from one run of each without "
            f"saved outputs."
        )
    over = f"over {pairing.samples:,} samples of {pairing.split}; other seeds may differ by more"
    name = f"{pairing.split}/{judged.metric}"
    return _sentence(names, name, mode_of(name) or found.groups[0].runs[0].mode, judged.difference, over)


def _names(first: Group, second: Group) -> tuple[str, str]:
    """What tells two groups apart: their names, or where they lie."""
    if first.name != second.name:
        return first.name, second.name
    return first.runs[0].summary.folder, second.runs[0].summary.folder


def _sentence(names: tuple[str, str], metric: str, mode: str | None, difference: Difference, over: str) -> str:
    """Which is better, and how sure that is."""
    told = f"(p = {difference.p:.3g}, {over})"
    if difference.p > 1 - CONFIDENCE:
        return f"By {metric}, {names[0]} and {names[1]} cannot be told apart {told}."
    if mode is None:
        return f"By {metric}, {names[0]} and {names[1]} differ {told}; which is better is not known."
    is_better = (difference.value < 0) == (mode == "min")
    better, worse = names[::-1] if is_better else names
    return f"By {metric}, {better} is better than {worse} {told}."
