"""Torch's own schedulers, and the forms in which a task gives them to its optimizers."""

import pytest
import torch
import torch.nn.functional as F
from small_runs import dataset
from torch import nn

import etude
from etude.base.errors import ConfigError

DATA = dataset(24)
QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


def rates(result):
    return [row["train/learning_rate"] for row in result.history if "train/learning_rate" in row]


class Every(etude.Task):
    """A line whose optimizer has the schedule that `make` gives it, and steps in every second round if it `rests`."""

    def __init__(self, make, *, rests):
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.make, self.rests = nn.Linear(4, 1), make, rests

    def training_step(self, batch):
        return F.mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch):
        return torch.ones(())

    def configure_optimizers(self):
        return self.make(torch.optim.SGD(self.parameters(), lr=0.8))

    def optimizer_step(self, optimizer, closure, *, name, progress):
        if not self.rests or progress.step % 2 == 0:
            optimizer.step(closure)


def train_every(make, *, rests=False, **options):
    options = {"max_duration": "6 steps", "batch_size": 8, **QUIET, **options}
    return etude.Trainer(**options).fit(Every(make, rests=rests), DATA, DATA)


SCHEDULERS = torch.optim.lr_scheduler


def halving(every, kind=SCHEDULERS.StepLR, **options):
    return lambda made: etude.Scheduled(made, kind(made, **options or {"step_size": 1, "gamma": 0.5}), every=every)


def test_a_torch_scheduler_is_stepped_as_often_as_every_says_in_the_optimizers_own_steps():
    assert rates(train_every(halving("2 steps"))) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    assert rates(train_every(halving("50 %"))) == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4]
    assert rates(train_every(halving("1 step"), rests=True)) == [0.8, 0.4, 0.4, 0.2, 0.2, 0.1]


def test_a_plateau_scheduler_takes_in_every_validation_or_those_that_every_asks_for():
    plateau = {"kind": SCHEDULERS.ReduceLROnPlateau, "factor": 0.5, "patience": 0}

    each = rates(train_every(halving(None, **plateau), eval_every="1 step"))
    third = rates(train_every(halving("3 steps", **plateau), eval_every="1 step", max_duration="9 steps"))

    assert each == [0.8, 0.8, 0.4, 0.2, 0.1, 0.05]
    assert third == [0.8] * 6 + [0.4] * 3


FUNCTIONS = {
    "a function": lambda made: SCHEDULERS.LambdaLR(made, lambda k: 0.9**k),
    "factors": lambda made: SCHEDULERS.MultiplicativeLR(made, lambda _: 0.9),
    "a sequence": lambda made: SCHEDULERS.SequentialLR(
        made, [SCHEDULERS.ConstantLR(made, 0.5, 2), SCHEDULERS.LambdaLR(made, lambda k: 0.9**k)], [2]
    ),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_torch_scheduler_made_of_functions_goes_on_after_a_restart(kind, tmp_path):
    def make(made):
        return etude.Scheduled(made, FUNCTIONS[kind](made), every="1 step")

    straight = train_every(make)
    train_every(make, run_dir=tmp_path, max_duration="3 steps")
    longer = train_every(make, run_dir=tmp_path)

    assert rates(longer) == rates(straight)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: {}, "returned none"),
        (lambda _: ([], []), "returned none"),
        (lambda made: ([made], 0.1), "a float in the place of the schedules"),
        (halving("soon"), "must be a number with its unit"),
        (lambda made: etude.Scheduled(made, 0.1, every="2 steps"), "only for torch's schedulers"),
        (lambda made: (made, FUNCTIONS["a function"](torch.optim.SGD([nn.Parameter(torch.ones(1))]))), "for another"),
    ],
)
def test_optimizers_and_schedules_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        train_every(make)


def test_an_optimizer_and_its_schedule_may_stand_alone_and_in_a_list_of_pairs():
    assert rates(train_every(lambda made: (made, lambda now: 1 / (1 + now.step)), max_duration="2 steps")) == [1, 0.5]
    pairs = train_every(
        lambda made: [(torch.optim.SGD([p]), r) for p, r in zip(parameters(made), (0.3, 0.2), strict=True)]
    )
    assert pairs.history[0]["train/learning_rate/0"] == 0.3
    assert pairs.history[0]["train/learning_rate/1"] == 0.2


def parameters(made):
    return made.param_groups[0]["params"]


@pytest.mark.parametrize("optimizer", [None, "sgd", torch.optim.SGD])
def test_a_torch_scheduler_without_the_optimizer_that_it_was_made_for_is_refused(optimizer):
    made = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)

    with pytest.raises(ConfigError, match="learning_rate is a StepLR"):
        etude.Trainer(optimizer=optimizer, learning_rate=SCHEDULERS.StepLR(made, 1))


def test_parameters_that_no_checkpoint_holds_are_told_of():
    said = []

    train_every(lambda _: torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), say=said.append)

    assert any("1 are not the task's" in text for text in said)
