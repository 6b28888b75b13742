"""Laws of the schedules that follow validations: plateau and newbob."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import ScheduleSpec, bind, bind_whole

ADAPTER = TypeAdapter(ScheduleSpec)
RUN = Horizon(steps=1000, steps_per_epoch=100)
LATE = Progress(step=900, epoch=9)

results = st.lists(st.one_of(st.integers(0, 6).map(float), st.just(math.nan)), max_size=40)


def driven(**table):
    return bind(ADAPTER.validate_python({"peak": 1.0} | table), RUN, key="x")


def follow(schedule, losses, progress=LATE):
    rates = []
    for loss in losses:
        schedule.follow_validation({"val/loss": loss}, progress)
        rates.append(schedule(progress))
    return rates


def test_plateau_falls_at_the_patience_th_bad_validation_in_a_row():
    schedule = driven(schedule="plateau", patience=3)

    assert follow(schedule, [5, 5, 5, 5, 5, 5, 4, 5, 5, 5]) == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]


@settings(deadline=None)
@given(results, st.integers(1, 4), st.integers(0, 3), st.sampled_from([0.0, 1.0]), st.sampled_from(["min", "max"]))
def test_plateau_equals_torchs_with_a_patience_of_one_less(losses, patience, cooldown, delta, mode):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, 0.5, patience - 1, delta, "abs", cooldown, min_lr=0.01, eps=0.0
    )
    expected = []
    for loss in losses:
        torchs.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])

    options = {"patience": patience, "cooldown": cooldown, "min_delta": delta, "mode": mode, "minimum": 0.01}
    assert follow(driven(schedule="plateau", **options), losses) == pytest.approx(expected, rel=1e-12)


def test_newbob_falls_after_a_gain_below_the_threshold():
    schedule = driven(schedule="newbob", threshold=0.1)

    # Gains on the previous one: -, 1.0, 0.05, -0.5 (worse), 1.0 (better than the previous, not than the best).
    assert follow(schedule, [4.2, 2.1, 2.0, 4.0, 2.0]) == [1, 1, 0.5, 0.25, 0.25]


def test_newbob_may_compare_with_the_best_and_absolutely():
    best = driven(schedule="newbob", threshold=0.1, compare="best")
    absolute = driven(schedule="newbob", threshold=0.5, relative=False)

    assert follow(best, [4.2, 2.1, 4.0, 2.0]) == [1, 1, 0.5, 0.25]
    assert follow(absolute, [4.0, 3.5, 3.1]) == [1, 1, 0.5]


def test_newbob_passes_over_what_is_not_a_number():
    assert follow(driven(schedule="newbob"), [4.0, math.nan, 2.0, math.nan, 2.0, 2.0]) == [1, 1, 1, 1, 1, 0.5]


MISSING = [None, {}, {"val/bleu": 3.0}]


@pytest.mark.parametrize("missing", MISSING)
def test_newbob_never_compares_across_a_missing_validation(missing):
    schedule, rates = driven(schedule="newbob", peak=0.01, monitor="val/loss"), []
    for given_metrics in ({"val/loss": 2.0}, missing, {"val/loss": 2.0}, {"val/loss": 2.0}):
        rates.append(schedule(LATE))  # of the epoch that the validation ends
        schedule.follow_validation(given_metrics or {"val/loss": math.nan}, LATE)

    assert rates == [0.01] * 4
    assert schedule(LATE) == 0.005


def test_the_best_of_newbob_outlives_a_missing_validation():
    schedule = driven(schedule="newbob", compare="best", monitor="val/loss")

    follow(schedule, [2.0])
    schedule.follow_validation({}, LATE)

    assert follow(schedule, [2.0]) == [0.5]


@pytest.mark.parametrize("missing", MISSING[1:])
def test_a_missing_validation_moves_no_plateau_and_one_that_is_no_number_is_bad(missing):
    schedule = driven(schedule="plateau", patience=2)

    follow(schedule, [4.0, math.nan])
    for _ in range(3):
        schedule.follow_validation(missing, LATE)
    assert schedule(LATE) == 1.0

    assert follow(schedule, [math.nan]) == [0.5]


def test_a_metric_that_comes_and_goes_is_missing_after_a_resume_too():
    schedule, resumed = driven(schedule="newbob"), driven(schedule="newbob")
    schedule.follow_validation({"val/wer": 2.0}, LATE)

    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for metrics in ({"val/loss": 1.0, "val/cer": 3.0}, {"val/wer": 2.0}, {"val/wer": 2.0}):
        resumed.follow_validation(metrics, LATE)

    assert resumed(LATE) == 0.5


def test_newbob_waits_for_its_first_epochs():
    schedule = driven(schedule="newbob", min_epochs="3 epochs")

    assert follow(schedule, [4.0, 4.0], Progress(step=250, epoch=2)) == [1, 1]
    assert follow(schedule, [4.0], Progress(step=300, epoch=3)) == [0.5]


def test_newbob_asks_which_metric_is_meant_where_several_could_be():
    schedule = driven(schedule="newbob")

    with pytest.raises(ConfigError, match=r"x\.monitor must be given: it could be any of val/loss, val/bleu\."):
        schedule.follow_validation({"val/loss": 1.0, "val/bleu": 2.0}, LATE)


def test_newbob_follows_the_one_metric_there_is_said_twice_or_once():
    schedule = driven(schedule="newbob")

    for metrics in ({"val/loss": 4.0}, {"val/loss": 4.0, "val/epoch_loss": 4.0}):
        schedule.check(metrics)
        schedule.follow_validation(metrics, LATE)

    assert schedule(LATE) == 0.5


def test_the_loss_of_an_epoch_is_followed_at_the_ends_of_epochs_alone():
    schedule = driven(schedule="plateau", monitor="val/epoch_loss", patience=1)

    schedule.check({"val/loss": 4.0})
    for metrics in ({"val/loss": 4.0, "val/epoch_loss": 4.0}, {"val/loss": 9.0}, {"val/loss": 9.0}):
        schedule.follow_validation(metrics, LATE)

    assert schedule(LATE) == 1.0


def test_what_cannot_be_followed_is_found_before_it_is():
    for table in ({"schedule": "newbob"}, {"schedule": "plateau", "monitor": "val/wer"}):
        with pytest.raises(ConfigError, match=r"x\.monitor must be"):
            driven(**table).check({"val/loss": 1.0, "val/bleu": 2.0})


def test_a_metric_that_is_not_logged_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"x\.monitor must be a logged metric, but is val/wer; there are: val/loss\."):
        driven(schedule="plateau", monitor="val/wer").follow_validation({"val/loss": 1.0}, LATE)


@pytest.mark.parametrize("name", ["plateau", "newbob"])
def test_the_minimum_never_raises_a_rate(name):
    assert follow(driven(schedule=name, minimum=0.4, patience=1) if name == "plateau" else
                  driven(schedule=name, minimum=0.4), [4.0] * 5)[-1] == pytest.approx(0.4)  # fmt: skip
    assert follow(driven(schedule=name, peak=0.1, minimum=0.4), [4.0] * 9)[-1] == 0.1


@pytest.mark.parametrize("name", ["plateau", "newbob"])
def test_warmup_rises_to_the_level_that_validations_left(name):
    schedule = driven(schedule=name, warmup="100 steps")
    follow(schedule, [4.0] * (4 if name == "plateau" else 2))

    assert [schedule(Progress(step=k)) for k in (0, 49, 99, 500)] == [0.005, 0.25, 0.5, 0.5]


@settings(deadline=None)
@given(st.sampled_from(["plateau", "newbob"]), results, results)
def test_a_resumed_schedule_goes_on_as_an_unbroken_one(name, before, after):
    unbroken, resumed = driven(schedule=name), driven(schedule=name)
    follow(unbroken, before)

    resumed.load_state_dict(json.loads(json.dumps(unbroken.state_dict())))

    assert follow(resumed, after) == follow(unbroken, after)


@pytest.mark.parametrize("name", ["plateau", "newbob"])
def test_more_of_a_metric_that_is_known_for_it_is_better_unless_the_mode_is_given(name):
    found = {}
    for metric in ("val/loss", "val/bleu", "val/macro_f1", "val/thing"):
        for mode in ({}, {"mode": "min"}, {"mode": "max"}):
            schedule = driven(schedule=name, patience=1, monitor=metric, **mode) if name == "plateau" else driven(
                schedule=name, monitor=metric, **mode
            )  # fmt: skip
            for value in (10.0, 20.0):
                schedule.follow_validation({"val/other": 0.0, metric: value}, LATE)
            found[metric, mode.get("mode")] = schedule(LATE)

    assert {key for key, value in found.items() if value == 1.0} == {
        ("val/bleu", None), ("val/macro_f1", None), *((metric, "max") for metric, _ in found)
    }  # fmt: skip


def test_a_whole_number_follows_no_validation():
    with pytest.raises(ConfigError, match="x must be a schedule that does not follow validations, but is plateau"):
        bind_whole(ADAPTER.validate_python({"schedule": "plateau", "peak": 4.0}), RUN, key="x")


CHAIN = [{"schedule": "linear", "from": 0.0, "to": 1.0, "over": "200 steps"}]


def chain(last, **table):
    return bind(ADAPTER.validate_python({"schedule": "chain", "parts": [*CHAIN, last], **table}), RUN, key="x")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["plateau", "newbob"])
def test_the_last_part_of_a_chain_follows_the_validations_after_its_own_steps(name, nested):
    last = {"schedule": name, "peak": 1.0} | ({"patience": 1} if name == "plateau" else {})
    schedule = chain({"schedule": "chain", "parts": [last]} if nested else last)

    found = []
    for step in range(100, 700, 100):
        found.append(schedule(Progress(step=step)))
        schedule.follow_validation({"val/loss": 4.0}, Progress(step=step))

    # The validations after steps 100 and 200 are of the warm-up; that after step 300 is the first to be compared with.
    assert found == [0.5, 1.0, 1.0, 1.0, 0.5, 0.25]
    again = chain(last)
    again.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert again(LATE) == schedule(LATE) == 0.125


def test_the_first_epochs_of_newbob_in_a_chain_are_counted_from_its_beginning():
    schedule = chain({"schedule": "newbob", "peak": 1.0, "min_epochs": "2 epochs"})

    rates = []
    for step in (300, 350, 400, 450):
        schedule.follow_validation({"val/loss": 4.0}, Progress(step=step, epoch=step // 100))
        rates.append(schedule(Progress(step=step)))

    assert rates == [1.0, 1.0, 0.5, 0.25]


def test_a_chain_refuses_what_its_last_part_cannot_follow():
    with pytest.raises(ConfigError, match=r"x\.parts\.1\.monitor must be a logged metric"):
        chain({"schedule": "plateau", "peak": 1.0, "monitor": "val/wer"}).check({"val/loss": 1.0})
