"""Metrics of a task's own: made by configure_metrics, reset before every pass, computed once at its end."""

import pytest
import torch
from small_runs import dataset
from torch import nn

import etude
from etude.base.errors import ConfigError

DATA = dataset(20)
QUIET = {"device": "cpu", "say": lambda _: None, "progress": False, "batch_size": 8, "max_duration": "2 epochs"}


class Seen:
    """Counts samples."""

    def __init__(self):
        self.count = 0

    def update(self, batch):
        self.count += len(batch[0])

    def merge(self, other):
        self.count += other.count

    def compute(self):
        return self.count

    def reset(self):
        self.count = 0


class Theirs(nn.Module):
    """What a torchmetrics one looks like: a module with merge_state, called to update and compute at once."""

    def __init__(self):
        super().__init__()
        self.total = torch.zeros(())

    def update(self, values):
        self.total += values.sum()

    def forward(self, values):
        self.update(values)
        return values.sum()

    def merge_state(self, other):
        self.total += other.total

    def compute(self):
        return self.total.clone()

    def reset(self):
        self.total = torch.zeros(())


class Measured(etude.Task):
    def __init__(self, metric):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.metric = metric

    def configure_metrics(self):
        return {"seen": self.metric}

    def training_step(self, batch):
        return (self.layer(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch):
        self.metrics["seen"].update(batch)
        return self.training_step(batch)


def test_a_metric_is_reset_before_every_pass_and_logged_by_its_name():
    task = Measured(Seen())

    result = etude.Trainer(**QUIET).fit(task, DATA, DATA)

    assert [row["val/seen"] for row in result.history if "val/seen" in row] == [20, 20]
    assert etude.Trainer(**QUIET).test(task, DATA)["test/seen"] == 20


def test_a_torchmetrics_one_is_handed_to_the_step_as_it_is():
    class Calling(Measured):
        def validation_step(self, batch):
            self.metrics["seen"](torch.ones(len(batch[0])))
            self.metric.update(torch.ones(1))
            return self.training_step(batch)

    result = etude.Trainer(**QUIET).fit(Calling(Theirs()), DATA, DATA)

    assert result.metrics["val/seen"] == 23.0


def test_a_metric_of_several_values_gives_each_its_name_and_one_of_a_vector_is_refused():
    class Several(Seen):
        def compute(self):
            return {"low": 1, "high": torch.tensor(2.0)}

    class Vector(Seen):
        def compute(self):
            return torch.ones(3)

    metrics = etude.Trainer(**QUIET).validate(Measured(Several()), DATA)

    assert (metrics["val/low"], metrics["val/high"]) == (1.0, 2.0)
    with pytest.raises(ConfigError, match=r"'seen' must be one number.*shape \(3,\)"):
        etude.Trainer(**QUIET).validate(Measured(Vector()), DATA)


def test_a_metric_may_decide_about_the_best():
    task = Measured(Seen())

    result = etude.Trainer(monitor="val/seen", mode="max", **QUIET).fit(task, DATA, DATA)

    assert result.best_step == 3
    with pytest.raises(ConfigError, match=r"train\.mode"):
        etude.Trainer(monitor="val/seen", **QUIET).fit(task, DATA, DATA)


def test_metrics_of_parts_merge_into_those_of_the_whole():
    from etude.train.watch.metrics import adapt

    for make, parts in ((Seen, [([1, 2],), ([3],)]), (Theirs, [torch.ones(2), torch.ones(1)])):
        whole, one, other = (adapt(make()) for _ in range(3))
        for part in parts:
            whole.update(part)
        one.update(parts[0])
        other.update(parts[1])
        one.merge(other)
        assert float(one.compute()) == float(whole.compute())
