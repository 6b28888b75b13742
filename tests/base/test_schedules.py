"""Values of every schedule, against torch's schedulers and against the formulas in 40 digits."""

import math
import timeit

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import ScheduleSpec, bind, bind_whole

N, EPOCH = 1000, 100
RUN = Horizon(steps=N, steps_per_epoch=EPOCH, samples_per_step=64, tokens_per_step=1000, batches_per_step=2)
ADAPTER = TypeAdapter(ScheduleSpec)
mpmath.mp.dps = 40


def at(k, epoch=EPOCH):
    """The moment before step k of the run."""
    return Progress(k, 2 * k, k // epoch, 64 * k, 1000 * k, 0.5 * k, 2 * (k % epoch), 2 * epoch)


def function(horizon=RUN, d_model=None, **table):
    table = {key.rstrip("_"): value for key, value in table.items()}
    return bind(ADAPTER.validate_python(table), horizon, key="x", d_model=d_model)


def values(steps, horizon=RUN, d_model=None, **table):
    schedule = function(horizon, d_model, **table)
    return [schedule(at(k)) for k in steps]


def from_torch(make, steps, rate=1.0):
    """The rates that one of torch's schedulers gives for steps 0, 1, ..."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def close(found, expected, tolerance=1e-12):
    return found == pytest.approx([float(value) for value in expected], rel=tolerance, abs=tolerance / 1000)


W = 50
PLACES = [0, 1, W - 2, W - 1, W, W + 1, 123, 500, N - 2, N - 1, N, N + 1, 5 * N]
PEAK = mpmath.mpf("0.3")


def warmed(after):
    """The formula of the page: peak * (k + 1) / W, then `after` as a function of j."""
    return [PEAK * mpmath.mpf(k + 1) / W if k < W else after(mpmath.mpf(k + 1 - W)) for k in PLACES]


def clipped(j, span):
    return min(mpmath.mpf(1), j / span)


C = N - W + 1
FORMULAS = {
    "constant": ({}, lambda j: PEAK),
    "linear": ({}, lambda j: PEAK * (1 - clipped(j, C))),
    "linear over 3 epochs": (
        {"schedule": "linear", "end": 0.9, "over": "3 epochs"},
        lambda j: PEAK + (mpmath.mpf("0.9") - PEAK) * clipped(j, 300),
    ),
    "cosine": ({}, lambda j: PEAK * (1 + mpmath.cos(mpmath.pi * clipped(j, C))) / 2),
    "cosine to an end": (
        {"schedule": "cosine", "end": 0.05, "cooldown": "200 steps"},
        lambda j: mpmath.mpf("0.05") + (PEAK - mpmath.mpf("0.05")) * (1 + mpmath.cos(mpmath.pi * clipped(j, 200))) / 2,
    ),
    "quarter": (
        {"schedule": "cosine", "wave": "quarter"},
        lambda j: PEAK * mpmath.cos(mpmath.pi / 2 * clipped(j, C)),
    ),
    "inverse": ({"power": 0.7}, lambda j: PEAK * ((j + W) / W) ** mpmath.mpf("-0.7")),
    "noam": ({}, lambda j: PEAK * ((j + W) / W) ** mpmath.mpf("-0.5")),
    "exponential": ({"gamma": 0.9, "every": "1 epoch"}, lambda j: PEAK * mpmath.mpf("0.9") ** (j / EPOCH)),
    "exponential by steps": ({"schedule": "exponential", "gamma": 0.99}, lambda j: PEAK * mpmath.mpf("0.99") ** j),
    "step": ({"every": "30 steps"}, lambda j: PEAK * mpmath.mpf("0.5") ** mpmath.floor(j / 30)),
    "step by tokens": (
        {"schedule": "step", "every": "30000 tokens", "factor": 0.7},
        lambda j: PEAK * mpmath.mpf("0.7") ** mpmath.floor(j / 30),
    ),
    "trapezoid": ({}, lambda j: PEAK * (1 - max(0, min(1, (j + W - 900) / mpmath.mpf(101))))),
    "wsd": (
        {"shape": "sqrt", "decay": "200 steps", "end": 0.1},
        lambda j: (
            mpmath.mpf("0.1")
            + (PEAK - mpmath.mpf("0.1")) * (1 - mpmath.sqrt(max(0, min(1, (j + W - 800) / mpmath.mpf(201)))))
        ),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_schedule_is_its_formula(name):
    options, after = FORMULAS[name]
    table = {"schedule": name, "peak": float(PEAK), "warmup": "50 steps"} | options

    assert close(values(PLACES, **table), warmed(after))


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in {"inverse", "noam"}])
def test_no_warmup_counts_as_one_step(name):
    table = {"schedule": name, "peak": 0.3} | FORMULAS[name][0]

    assert values([0], **table) == [0.3]
    assert values(PLACES, warmup="0 steps", **table) == values(PLACES, warmup="1 step", **table)


@pytest.mark.parametrize("shape", ["linear", "exponential"])
@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.floats(1e-6, 1e3))
def test_the_last_step_of_warmup_is_exactly_at_the_peak_and_the_next_one_close_to_it(name, shape, steps, peak):
    table = {"schedule": name, "peak": peak, "warmup": f"{steps} steps", "warmup_shape": shape} | FORMULAS[name][0]
    if "end" in table:
        table["end"] *= peak
    schedule = function(**table)
    before, top, after = (schedule(at(k)) for k in (steps - 2, steps - 1, steps))

    assert top == peak
    assert abs(after - peak) <= 0.5 * peak
    assert steps == 1 or 0 < before < peak


@pytest.mark.parametrize("warmup", ["50 steps", "0.5 epochs", "100 batches", "3200 samples", "50000 tokens", "5 %"])
def test_warmup_is_read_in_every_unit(warmup):
    assert values(PLACES, schedule="cosine", peak=0.3, warmup=warmup) == values(
        PLACES, schedule="cosine", peak=0.3, warmup="50 steps"
    )


def test_an_exponential_warmup_grows_by_one_factor_from_where_the_linear_one_begins():
    found = values(range(W), schedule="constant", peak=2.0, warmup="50 steps", warmup_shape="exponential")

    assert close(found, [2 * mpmath.mpf(W) ** (mpmath.mpf(k + 1 - W) / (W - 1)) for k in range(W)])
    assert found[0] == pytest.approx(2.0 / W)
    assert found[-1] == 2.0


def test_linear_warmup_equals_torchs():
    expected = from_torch(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1 / W, 1.0, W - 1), N)

    assert close(values(range(N), schedule="constant", peak=1, warmup="50 steps"), expected)


def test_linear_equals_torchs():
    expected = from_torch(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.25, 300), N)

    assert close(values(range(N), schedule="linear", from_=1.0, to=0.25, over="300 steps"), expected)


def test_cosine_equals_torchs():
    expected = from_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 300, eta_min=0.1), 301)

    assert close(values(range(301), schedule="cosine", peak=1, end=0.1, cooldown="300 steps"), expected, 1e-10)


def test_exponential_equals_torchs():
    expected = from_torch(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.99), N)

    assert close(values(range(N), schedule="exponential", peak=1, gamma=0.99), expected)


def test_step_equals_torchs():
    expected = from_torch(lambda o: torch.optim.lr_scheduler.StepLR(o, 30, 0.7), N)

    assert close(values(range(N), schedule="step", peak=1, factor=0.7, every="30 steps"), expected)


@pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.45])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("total", [7, 100, 333])
def test_one_cycle_equals_torchs(pct_start, strategy, three_phase, total):
    options = {"pct_start": pct_start, "anneal_strategy": strategy, "div_factor": 10.0, "final_div_factor": 1e3}

    expected = from_torch(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.7, total_steps=total + 1, cycle_momentum=False, three_phase=three_phase, **options
        ),
        total,
    )
    found = values(
        range(total), schedule="one_cycle", peak=0.7, over=f"{total + 1} steps", three_phase=three_phase, **options
    )

    assert close(found, expected)


def test_one_cycle_holds_its_last_value():
    last, after, later = values([N - 1, N, 9 * N], schedule="one_cycle", max_lr=0.5)

    assert last == after == later == pytest.approx(0.5 / 25 / 1e4, rel=1e-12)


def test_noam_is_the_schedule_of_the_paper():
    steps = [0, 10, 3998, 3999, 4000, 10**5]

    found = values(steps, d_model=512, schedule="noam", warmup="4000 steps", factor=2.0)

    paper = [
        2 * mpmath.mpf(512) ** -0.5 * min(mpmath.mpf(k + 1) ** -0.5, (k + 1) * mpmath.mpf(4000) ** -1.5) for k in steps
    ]
    assert close(found, paper)
    assert values(steps, schedule="noam", warmup="4000 steps", factor=2.0, d_model_=512) == found


def test_noam_asks_for_the_width_where_nobody_tells():
    with pytest.raises(ConfigError, match=r"x\.d_model must be given"):
        function(schedule="noam", warmup="4000 steps")


def test_a_quarter_wave_ends_at_exactly_zero():
    assert values([N, 3 * N], schedule="cosine", peak=0.3, wave="quarter") == [0.0, 0.0]


def test_ends_are_met_exactly_one_step_after_the_last():
    for table in ({"schedule": "linear"}, {"schedule": "cosine"}, {"schedule": "trapezoid"}):
        last, end, later = values([N - 1, N, 9 * N], peak=0.3, end=0.1, warmup="10 steps", **table)
        assert last > 0.1
        assert end == later == 0.1


def test_a_linear_value_may_rise():
    found = values([0, 1, 250, 499, 500, 501, 900], schedule="linear", from_=0.0, to=0.1, over="5 epochs")

    assert close(found, [0, 0.0002, 0.05, 0.0998, 0.1, 0.1, 0.1])


def test_a_warmup_longer_than_the_run_is_cut_by_its_end():
    assert close(values([0, N - 1], schedule="cosine", peak=1, warmup="4000 steps"), [1 / 4000, N / 4000])


def test_a_decay_longer_than_what_is_left_begins_where_warmup_ends():
    trapezoid = values(PLACES, schedule="trapezoid", peak=1, warmup="500 steps", decay="800 steps")

    assert close(trapezoid, values(PLACES, schedule="linear", peak=1, warmup="500 steps"))


def test_stairs_count_real_epochs():
    table = {"schedule": "stairs", "values": [2, 4, 6]}
    places = [0, 299, 300, 599, 600, 5000]

    assert values(places, every="3 epochs", **table) == [2, 2, 4, 4, 6, 6]
    assert values(places, at=["0 epochs", "3 epochs", "6 epochs"], **table) == [2, 2, 4, 4, 6, 6]
    # An epoch that is shorter than was thought is an epoch all the same.
    assert function(every="3 epochs", **table)(Progress(step=5, epoch=3)) == 4


@pytest.mark.parametrize(
    "every", ["100 steps", "200 batches", "6400 samples", "1e5 tokens", "1 epoch", "10 %", "0.5 epochs"]
)
def test_stairs_climb_on_the_step_that_their_unit_says(every):
    schedule = function(schedule="stairs", values=list(range(50)), every=every)
    length = 50 if every == "0.5 epochs" else 100

    assert [schedule(at(k)) for k in range(0, 501, 10)] == [k // length for k in range(0, 501, 10)]


def test_piecewise_is_linear_between_its_points_and_held_outside():
    points = [["100 steps", 0.0], ["300 steps", 1.0], ["500 steps", 0.5]]

    found = values([0, 100, 150, 300, 400, 500, 501, 2000], schedule="piecewise", points=points)

    assert close(found, [0, 0, 0.25, 1, 0.75, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("unit", [("epochs", 0.01), ("tokens", 1000), ("samples", 64), ("batches", 2), ("%", 0.1)])
def test_piecewise_follows_the_counter_of_its_unit(unit):
    name, scale = unit

    found = values(PLACES, schedule="piecewise", points=[[f"0 {name}", 1.0], [f"{500 * scale} {name}", 3.0]])

    assert close(found, [1 + 2 * min(1, k / 500) for k in PLACES])


def test_step_in_epochs_drops_at_the_ends_of_real_epochs():
    table = {"schedule": "step", "peak": 1.0, "every": "2 epochs"}

    assert values([0, 199, 200, 399, 400, 600], **table) == [1, 1, 0.5, 0.5, 0.25, 0.125]
    assert function(**table)(Progress(step=7, epoch=2)) == 0.5


@pytest.mark.parametrize(
    ("warmup", "first_drop"),
    [("1 epoch", 200), ("100 steps", 200), ("101 steps", 200), ("102 steps", 300), ("10 %", 200)],
)
def test_step_in_epochs_counts_those_wholly_after_the_warmup(warmup, first_drop):
    schedule = function(schedule="step", peak=1.0, every="1 epoch", warmup=warmup)

    drops = [k for k in range(150, 450) if schedule(at(k)) < schedule(at(k - 1))]

    assert drops[0] == first_drop
    assert all(drop % EPOCH == 0 for drop in drops)


@pytest.mark.parametrize("warmup", [1, 2, 50, 400])
def test_a_warmup_and_a_decay_in_a_chain_equal_one_schedule_with_that_warmup(warmup):
    chain = values(
        range(0, 1200, 7),
        schedule="chain",
        parts=[
            {"schedule": "constant", "peak": 0.3, "warmup": f"{warmup + 1} steps"},
            {"schedule": "cosine", "peak": 0.3},
        ],
    )

    assert close(chain, values(range(0, 1200, 7), schedule="cosine", peak=0.3, warmup=f"{warmup + 1} steps"))


def test_a_chain_hands_over_where_a_part_has_run_its_course():
    parts = [
        {"schedule": "linear", "from": 0.0, "to": 1.0, "over": "100 steps"},
        {"schedule": "cosine", "peak": 1.0, "end": 0.5, "cooldown": "2 epochs", "warmup": "1 step"},
        {"schedule": "linear", "from": 0.5},
    ]

    found = values([0, 50, 99, 100, 200, 299, 300, 301, 999, 1000], schedule="chain", parts=parts)

    half = [0.5 + 0.25 * (1 + math.cos(math.pi * j / 200)) for j in (0, 100, 199)]
    assert close(found, [0, 0.5, 0.99, *half, 0.5, 0.5 * (1 - 1 / 700), 0.5 / 700, 0.0])


def test_a_chain_hands_over_at_the_moments_that_are_given():
    parts = [
        {"schedule": "constant", "peak": 2.0},
        {"schedule": "linear", "from": 3.0},
        {"schedule": "constant", "peak": 5},
    ]

    found = values(
        [0, 99, 100, 101, 499, 500, 999], schedule="chain", parts=parts, at=["0 steps", "1 epoch", "5 epochs"]
    )

    assert close(found, [2, 2, 3, 3 * (1 - 1 / 400), 3 / 400, 5, 5])


def test_a_part_of_a_chain_counts_from_its_own_beginning_in_every_unit():
    parts = [{"schedule": "constant", "peak": 9.0}, {"schedule": "stairs", "values": [1, 2, 3], "every": "1 epoch"}]

    found = values([49, 50, 149, 150, 250, 350], schedule="chain", parts=parts, at=["0 steps", "50 steps"])

    assert found == [9, 1, 1, 2, 3, 3]


def test_a_run_without_a_known_length_is_told_what_to_give():
    unknown = Horizon(steps=None, steps_per_epoch=100)

    for name, option in [("linear", "over"), ("cosine", "cooldown"), ("trapezoid", "over"), ("one_cycle", "over")]:
        with pytest.raises(ConfigError, match=rf"x\.{option} must be given, because the length of this run is unknown"):
            function(unknown, schedule=name, peak=1.0)
        assert function(unknown, schedule=name, peak=1.0, **{option: "5 epochs"})(at(5000)) < 1e-3
    for table in (
        {"schedule": "constant"},
        {"schedule": "step", "every": "1 epoch"},
        {"schedule": "exponential", "gamma": 0.5},
    ):
        assert function(unknown, peak=1.0, **table)(at(0)) == 1.0


def test_all_that_a_run_without_a_known_length_lacks_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        function(Horizon(), schedule="cosine", peak=1.0, warmup="5 %")

    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["x.warmup", "x.cooldown"]


def test_a_chain_may_be_a_part_of_a_chain():
    rise, fall = {"schedule": "linear", "from": 0.0, "to": 1.0, "over": "10 steps"}, {"schedule": "linear", "from": 1.0}
    inner = {"schedule": "chain", "parts": [rise, {"schedule": "constant", "peak": 1.0, "warmup": "2 steps"}, rise]}

    found = values([0, 5, 10, 11, 16, 21, 510, N], schedule="chain", parts=[inner, fall])

    assert close(found, [0, 0.5, 0.5, 0, 0.5, 1, 1 - 489 / (N - 21), 0])


def test_a_share_of_a_run_without_a_known_length_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"x\.warmup is 5 %, but the length of the run is unknown here"):
        function(Horizon(), schedule="constant", peak=1.0, warmup="5 %")


def test_a_function_of_the_users_is_a_schedule(tmp_path):
    (tmp_path / "mine.py").write_text("def ramp(progress, slope=1.0):\n    return slope * progress.epoch\n")

    assert values([0, 250], schedule=f"{tmp_path}/mine.py:ramp") == [0, 2]
    assert values([0, 250], schedule=f"{tmp_path}/mine.py:ramp", slope=0.5) == [0, 1]
    with pytest.raises(ConfigError, match=r"did you mean x\.slope"):
        function(schedule=f"{tmp_path}/mine.py:ramp", slop=0.5)


def test_whole_numbers_are_rounded_and_at_least_one():
    table = {"schedule": "piecewise", "points": [["0 steps", 0.0], ["100 steps", 10.0]]}
    whole = bind_whole(ADAPTER.validate_python(table), RUN, key="x")

    assert [whole(at(k)) for k in (0, 4, 14, 15, 25, 100, 900)] == [1, 1, 1, 2, 3, 10, 10]
    assert bind_whole(4, RUN, key="x")(at(0)) == 4
    assert all(type(whole(at(k))) is int for k in (0, 50))


def test_a_constant_is_a_schedule_too():
    assert bind(3, RUN, key="x")(at(77)) == 3.0


@pytest.mark.parametrize("name", [*FORMULAS, "one_cycle", "chain"])
def test_a_value_takes_a_few_microseconds_at_most(name):
    table = {"schedule": name, "peak": 0.3, "warmup": "50 steps"} | FORMULAS.get(name, ({},))[0]
    if name in {"one_cycle", "chain"}:
        del table["warmup"]
    if name == "chain":
        table = {"schedule": name, "parts": [{"schedule": "cosine", "peak": 1.0, "warmup": "9 steps"}]}
    schedule, now = function(**table), at(700)

    seconds = min(timeit.repeat(lambda: schedule(now), number=1000, repeat=5)) / 1000

    assert seconds < 5e-6  # a tenth of it on a free core; the rest is for a busy one
