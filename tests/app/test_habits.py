"""Habits of other trainers in Python: they work, or are answered in a sentence."""

import numpy as np
import pytest
import torch
from python_face import QUIET, Line, fit, line, net, trainer
from torch import nn

import etude
from etude.errors import ConfigError

INPUTS, TARGETS = line().tensors
MSE = nn.functional.mse_loss
SHORT = {"max_duration": "2 epochs", "learning_rate": 0.05, "batch_size": 4, **QUIET}


class Lightning(Line):
    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        return self.loss(batch)


def test_a_step_that_needs_what_nobody_gives_is_refused_before_training():
    with pytest.raises(ConfigError) as refused:
        trainer().fit(Lightning(), line(), line())

    assert refused.value.problems == tuple(
        f"Lightning.{step} needs batch_idx, which Etude does not give: leave it out; self.progress.batch counts "
        f"batches."
        for step in ("training_step", "validation_step")
    )
    with pytest.raises(ConfigError, match=r"training_step needs batch_idx"):
        trainer().validate(Lightning(), line())


def test_what_a_step_may_declare_is_not_refused():
    class Declares(Line):
        def training_step(self, batch, *, progress, hiddens=None, optimizer=None, **others):
            return self.loss(batch)

        def predict_step(self, batch, scale=1.0, *rest):
            return self.net(batch[0])

    trainer(max_duration="1 epoch").fit(Declares(), line())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda made, task: made.fit(task, line(), ckpt_path="x"), "fit does not take ckpt_path; a run with run_dir"),
        (lambda made, task: made.fit(task, train_dataloaders=line()), "fit does not take train_dataloaders; write tr"),
        (lambda made, task: made.fit(task, trian=line()), "fit does not take trian; did you mean train"),
        (
            lambda made, task: made.test(task, dataloaders=line()),
            "test does not take dataloaders; give the data",
        ),
        (lambda made, task: made.test(task, line(), ckpt_path="best"), "test does not take ckpt_path; .*weights="),
        (lambda made, task: made.validate(task, datamodule=1), "validate does not take datamodule"),
        (lambda made, task: made.predict(task, zzz=1), "predict does not take zzz; it takes task, data"),
        (lambda made, task: made.predict(task), r"predict needs data: predict\(task, loader\)"),
    ],
)
def test_arguments_of_other_trainers_are_answered(call, said):
    with pytest.raises(ConfigError, match=said):
        call(trainer(), Line())


def test_what_log_does_not_take_is_refused():
    with pytest.raises(ConfigError, match=r"self\.log takes a name, a value and a count, but got prog_bar, on_epoch"):
        Line().log("error", 1.0, prog_bar=True, on_epoch=True)


def test_an_attribute_of_another_trainers_task_is_told_of():
    with pytest.raises(AttributeError, match=r"no attribute 'current_epoch'; Etude calls this self\.progress\.epoch"):
        _ = Line().current_epoch
    with pytest.raises(AttributeError, match=r"^'Line' object has no attribute 'zzz'$"):
        _ = Line().zzz


class Scaled(nn.Module):
    """A module of two arguments."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, inputs, lengths):
        return self.net(inputs) * lengths[:, None]


class OfPair(Scaled):
    """The same, of one argument."""

    def forward(self, pair):
        return super().forward(*pair)


@pytest.mark.parametrize("kind", [Scaled, OfPair])
@pytest.mark.parametrize("array", [False, True])
def test_several_inputs_are_the_arguments_of_a_module_that_takes_them(kind, array):
    lengths = torch.arange(1.0, 13.0)
    data = [((INPUTS[:12], lengths), TARGETS[:12])]
    if array:
        data = [((inputs.numpy(), lengths.numpy()), targets.numpy()) for (inputs, lengths), targets in data]
    module, alike = kind(), Scaled()

    result = etude.fit(module, data, data, loss=MSE, max_duration="1 step", optimizer="sgd", learning_rate=0.1, **QUIET)

    MSE(alike(INPUTS[:12], lengths), TARGETS[:12]).backward()
    with torch.no_grad():
        for weight in alike.parameters():
            weight.sub_(0.1 * weight.grad)
        wanted = MSE(alike(INPUTS[:12], lengths), TARGETS[:12])
    assert result.metrics["val/loss"] == pytest.approx(float(wanted), rel=1e-5)


def pairs_of(kind):
    return {
        "tensors": list(zip(INPUTS, TARGETS, strict=True)),
        "arrays": [(inputs.numpy().astype(float), targets.numpy()) for inputs, targets in line()],
        "lists": [[inputs.tolist(), targets.tolist()] for inputs, targets in line()],
    }[kind]


@pytest.mark.parametrize("kind", ["tensors", "arrays", "lists"])
def test_a_list_of_samples_trains_as_their_dataset_does_and_says_so(kind):
    told = []

    listed = etude.fit(
        net(), pairs_of(kind), pairs_of(kind), loss=etude.losses.MeanSquaredError(), **{**SHORT, "say": told.append}
    )
    dataset = fit(line(), line(), **SHORT)

    assert [row.get("train/loss") for row in listed.history] == [row.get("train/loss") for row in dataset.history]
    assert listed.metrics == dataset.metrics
    assert told[:2] == [
        f"{name} is a list of samples: Etude makes batches of them, of batch_size samples each."
        for name in ("train", "val")
    ]


def test_classes_as_plain_numbers_are_targets():
    samples = [(inputs, number % 2) for number, inputs in enumerate(INPUTS)]

    result = etude.fit(nn.Linear(4, 2), samples, samples, loss=nn.CrossEntropyLoss(), **SHORT)

    assert result.progress.step == 12


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (INPUTS, "one Tensor"),
        (INPUTS.numpy(), "one ndarray"),
        ((INPUTS, TARGETS), "a tuple of arrays"),
        ((INPUTS.numpy(), TARGETS.numpy()), "a tuple of arrays"),
    ],
)
def test_arrays_that_say_nothing_of_pairs_are_refused(given, named):
    with pytest.raises(ConfigError, match=f"train must hold pairs of inputs and targets, but is {named}; give torch"):
        etude.fit(net(), given, loss=MSE, **QUIET)


def test_batches_stay_batches():
    batches = [(INPUTS[:4], TARGETS[:4]), (INPUTS[4:8], TARGETS[4:8])]
    numbers = [(np.ones((2, 4), dtype=np.float32), np.ones((2, 1), dtype=np.float32))]

    assert fit(batches).progress.step == 4
    assert fit(numbers).progress.step == 2
