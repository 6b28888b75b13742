"""Whether one system translates better than another: sacreBLEU's own paired bootstrap."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etude.metrics.text import TEXT_METRICS, one_line


class PairedScores(NamedTuple):
    """What sacreBLEU says of two systems on the same sources."""

    first: float
    second: float
    p: float
    """How often a resample is as far from the others as the systems are from each other (Koehn 2004)."""


def paired_scores(
    metric: str, first: Sequence[str], second: Sequence[str], references: Sequence[str], *, resamples: int
) -> PairedScores:
    """The scores of two systems by a metric of `TEXT_METRICS`, and sacreBLEU's p for the second against the first.

    Its seed is sacreBLEU's, 12345 unless SACREBLEU_SEED says otherwise. Raises ConfigError where it is not installed.
    """
    measures: dict[str, Any] = {metric: TEXT_METRICS[metric]().measure}
    from sacrebleu.significance import PairedTest

    systems: Any = [("first", list(map(one_line, first))), ("second", list(map(one_line, second)))]
    test = PairedTest(systems, measures, [list(map(one_line, references))], test_type="bs", n_samples=resamples)
    scores: dict[str, list[Any]] = test()[1]
    baseline, system = next(results for name, results in scores.items() if name != "System")
    return PairedScores(float(baseline.score), float(system.score), float(system.p_value))
