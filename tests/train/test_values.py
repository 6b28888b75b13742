"""Scheduled values: set before a step or held by an epoch, logged, and remembered."""

import pytest

from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import Linear, Noam, Plateau
from etude.base.schedules.values import ScheduledValue
from etude.train.values import Values

LENGTH = Horizon(steps=10, steps_per_epoch=5)
RAMP = Linear.model_validate({"schedule": "linear", "from": 1.0, "to": 11.0, "over": "10 steps"})


def made(when, *, whole=False):
    given = []
    return given, Values([ScheduledValue("data.size", RAMP, given.append, when=when, whole=whole)], LENGTH)


def test_a_value_of_steps_is_set_before_each_and_applied_where_it_changes():
    given, values = made("step")

    for step in (0, 1, 1, 2):
        values.set(Progress(step=step))

    assert given == [1.0, 2.0, 3.0]
    assert values.row() == {"size": 3.0}
    assert values.parts() == {}


def test_a_value_of_epochs_is_held_to_the_end_of_its_epoch_and_goes_on_there():
    given, values = made("epoch", whole=True)

    values.begin_epoch(Progress(step=5, epoch=1))
    values.set(Progress(step=7, epoch=1))
    again, resumed = made("epoch", whole=True)
    resumed.parts()["data value size"].load_state_dict(values.parts()["data value size"].state_dict())
    resumed.set(Progress(step=7, epoch=1))

    assert given == again == [6]
    assert values.row() == resumed.row() == {"size": 6}


def test_one_that_no_epoch_has_taken_up_yet_is_kept_as_nothing():
    _, values = made("epoch")
    given, resumed = made("epoch")
    kept = values.parts()["data value size"].state_dict()

    resumed.parts()["data value size"].load_state_dict(kept)

    assert kept == {"now": None}
    assert given == []


def test_looking_plans_nothing():
    given, values = made("epoch")

    values.look(Progress(step=5, epoch=1), Progress(step=7, epoch=1))

    assert given == []
    assert values.row() == {"size": 6.0}


def test_what_follows_validations_is_found_by_its_name_unless_it_should_be_whole():
    plateau = Plateau(schedule="plateau", peak=1.0, patience=1)
    values = Values([ScheduledValue("model.dropout", plateau, print)], LENGTH)

    values.driven["dropout"].follow_validation({"val/loss": 1.0}, Progress(step=1))
    values.driven["dropout"].follow_validation({"val/loss": 2.0}, Progress(step=2))

    assert values.all[0].schedule(Progress(step=2)) == 0.5
    with pytest.raises(ConfigError, match=r"train\.batch_size must be a schedule that does not follow validations"):
        Values([ScheduledValue("train.batch_size", plateau, print, whole=True)], LENGTH)


def test_a_schedule_that_scales_by_the_models_width_is_told_of_it():
    noam = Noam.model_validate({"schedule": "noam", "warmup": "4 steps"})

    values = Values([ScheduledValue("model.dropout", noam, print)], LENGTH, d_model=4)
    values.set(Progress(step=3))

    assert values.row()["dropout"] == pytest.approx(4**-0.5 * 4**-0.5)
