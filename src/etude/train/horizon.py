"""How long a run will be, in steps: what schedules that reach to its end are bound to."""

import math
from collections.abc import Sequence
from typing import Any

from etude.base.durations import Duration
from etude.base.horizon import Horizon
from etude.data.feed import Feed


def horizon(until: Sequence[Duration], feed: Feed, accumulate: Any) -> Horizon:
    """The horizon of a run over `feed`: exact where its batches can be counted, else estimated from it.

    A scheduled `accumulate` is taken at its first value.
    """
    per_step = accumulate if isinstance(accumulate, int) else 1
    batches = feed.batches
    steps_per_epoch = None if batches is None else math.ceil(batches / per_step)
    ratio = None if not batches else steps_per_epoch / batches if steps_per_epoch else None
    samples = None if feed.samples is None or not steps_per_epoch else feed.samples / steps_per_epoch
    targets = getattr(feed, "targets", None)
    tokens = None if targets is None or not steps_per_epoch else targets / steps_per_epoch
    bare = Horizon(
        steps=None,
        steps_per_epoch=steps_per_epoch,
        samples_per_step=samples,
        tokens_per_step=tokens,
        batches_per_step=per_step if ratio is None else 1 / ratio,
        exact=feed.exact and isinstance(accumulate, int),
    )
    lengths = [steps for duration in until if (steps := _steps(bare, duration)) is not None]
    steps = min(lengths, default=None)
    return Horizon(
        steps=None if steps is None else float(math.ceil(steps)),
        steps_per_epoch=steps_per_epoch,
        samples_per_step=samples,
        tokens_per_step=tokens,
        batches_per_step=bare.batches_per_step,
        exact=bare.exact and len(lengths) == len(until),
    )


def _steps(bare: Horizon, duration: Duration) -> float | None:
    """The duration in steps; None for time, and for what this data cannot tell."""
    known = {
        "epochs": bare.steps_per_epoch,
        "steps": 1.0,
        "batches": 1.0 / bare.batches_per_step,
        "samples": None if not bare.samples_per_step else 1.0 / bare.samples_per_step,
        "tokens": None if not bare.tokens_per_step else 1.0 / bare.tokens_per_step,
    }.get(duration.unit)
    return None if known is None else float(duration.amount) * known
