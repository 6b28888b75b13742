"""A table of every schedule with a warm-up: at its start, its peak, its end and past it, in forty digits."""

import mpmath
import pytest
from pydantic import TypeAdapter

from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import ScheduleSpec, bind

N, EPOCH = 200, 20
RUN = Horizon(steps=N, steps_per_epoch=EPOCH, samples_per_step=32, tokens_per_step=700, batches_per_step=3)
ADAPTER = TypeAdapter(ScheduleSpec)
PEAK, END = mpmath.mpf("0.7"), mpmath.mpf("0.05")
mpmath.mp.dps = 40


def at(k):
    return Progress(k, 3 * k, k // EPOCH, 32 * k, 700 * k, 0.0, 3 * (k % EPOCH), 3 * EPOCH)


def part(j, length):
    return min(mpmath.mpf(1), mpmath.mpf(j) / length)


def half(t, end=0):
    return end + (PEAK - end) * (1 + mpmath.cos(mpmath.pi * t)) / 2


# Each: options, and the value at j >= 0 steps after a warm-up of w.
TABLE = {
    "constant": ({}, lambda j, w: PEAK),
    "linear": ({}, lambda j, w: PEAK * (1 - part(j, N - w + 1))),
    "linear to": ({"from": 0.7, "to": 0.05, "over": "30 steps"}, lambda j, w: PEAK + (END - PEAK) * part(j, 30)),
    "cosine": ({"end": 0.05}, lambda j, w: half(part(j, N - w + 1), END)),
    "cosine cooldown": ({"cooldown": "21000 tokens"}, lambda j, w: half(part(j, 30))),
    "cosine quarter": (
        {"wave": "quarter", "cooldown": "1.5 epochs"},
        lambda j, w: PEAK * mpmath.cos(mpmath.pi / 2 * part(j, 30)) if j < 30 else 0,
    ),
    "inverse": ({}, lambda j, w: PEAK * (mpmath.mpf(j + w) / w) ** mpmath.mpf("-0.5")),
    "inverse power": ({"power": 1}, lambda j, w: PEAK * w / mpmath.mpf(j + w)),
    "noam": ({}, lambda j, w: PEAK * mpmath.sqrt(w / mpmath.mpf(j + w))),
    "exponential": (
        {"gamma": 0.8, "every": "96 samples"},
        lambda j, w: PEAK * mpmath.mpf("0.8") ** (mpmath.mpf(j) / 3),
    ),
    "step": ({"every": "30 batches"}, lambda j, w: PEAK * mpmath.mpf("0.5") ** (j // 10)),
    "trapezoid": ({}, lambda j, w: PEAK * (1 - max(0, part(j + w - (N - 20), 21)))),
    "trapezoid sqrt": (
        {"decay": "1 epoch", "shape": "sqrt", "end": 0.05},
        lambda j, w: END + (PEAK - END) * (1 - mpmath.sqrt(max(0, part(j + w - (N - 20), 21)))),
    ),
    "wsd": ({"decay": "25 steps", "over": "100 steps"}, lambda j, w: PEAK * (1 - max(0, part(j + w - 75, 26)))),
}
WARMUPS = [0, 1, 2, 40]


def places(w):
    """The first steps, the last of the warm-up and the next, the ends of each part, and past the run."""
    first = max(w, 1)
    near = {0, 1, first - 2, first - 1, first, first + 1, first + 28, first + 29, first + 30}
    ends = {74, 75, 99, 100, 101, N - 22, N - 21, N - 20, N - 2, N - 1, N, N + 1, 7 * N}
    return sorted(k for k in near | ends if k >= 0)


@pytest.mark.parametrize("shape", ["linear", "exponential"])
@pytest.mark.parametrize(
    ("name", "warmup"),
    [(name, w) for name in TABLE for w in WARMUPS if w or name.split()[0] not in {"inverse", "noam"}],
)
def test_every_value_of_the_table_is_the_formulas(name, warmup, shape):
    options, after = TABLE[name]
    peak = {} if "from" in options else {"peak": 0.7}
    spec = {"schedule": name.split()[0], **peak, "warmup": f"{warmup} steps", "warmup_shape": shape, **options}
    w = max(warmup, 1)

    def expected(k):
        if k >= w:
            return after(k + 1 - w, w)
        share = mpmath.mpf(k + 1) / w
        if shape == "exponential" and w > 1:
            share = mpmath.mpf(w) ** (mpmath.mpf(k + 1 - w) / (w - 1))
        return PEAK * share

    schedule = bind(ADAPTER.validate_python(spec), RUN, key="x")

    found = [schedule(at(k)) for k in places(warmup)]
    assert found == pytest.approx([float(expected(k)) for k in places(warmup)], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("every", ["1 epoch", "2 epochs"])
@pytest.mark.parametrize("warmup", WARMUPS)
def test_a_step_in_epochs_counts_whole_epochs_since_the_warmup_ended(every, warmup):
    spec = {"schedule": "step", "peak": 0.7, "warmup": f"{warmup} steps", "every": every}
    schedule = bind(ADAPTER.validate_python(spec), RUN, key="x")
    length, begin = int(every[0]) * EPOCH, 0 if warmup <= 1 else -(-(warmup - 1) // EPOCH) * EPOCH
    late = list(range(max(warmup, 1), N))

    found = [schedule(at(k)) for k in late]

    assert found == pytest.approx([0.7 * 0.5 ** max(0, (k - begin) // length) for k in late], rel=1e-12)


@pytest.mark.parametrize("warmup", [1, 2, 40])
def test_any_part_of_a_chain_may_be_a_warmup(warmup):
    parts = [
        {"schedule": "linear", "from": 0.7, "to": 0.05, "over": "30 steps"},
        {"schedule": "linear", "peak": 0.7, "warmup": f"{warmup} steps"},
    ]
    chain = bind(ADAPTER.validate_python({"schedule": "chain", "parts": parts}), RUN, key="x")
    alone = bind(ADAPTER.validate_python(parts[1]), Horizon(steps=N - 30), key="x")

    found = [chain(at(30 + k)) for k in places(warmup)]

    assert found == pytest.approx([alone(at(k)) for k in places(warmup)], rel=1e-12)
    assert chain(at(29)) == pytest.approx(float(PEAK + (END - PEAK) * 29 / 30))
