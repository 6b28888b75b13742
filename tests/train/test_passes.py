"""Passes outside of training: who is told of what, in which order, and what is left behind where one fails."""

import pytest
import torch
from torch import nn

import etude
from etude.data.feeds.adopt import adopt
from etude.train.config import TrainConfig
from etude.train.passes import Passes
from etude.train.step.precision import Precision
from etude.train.watch.callback import EVENTS
from etude.train.watch.events import Events

CPU = torch.device("cpu")
BATCH = {
    "validate": ["validation_batch_start", "validation_batch_end"],
    "test": ["test_batch_start", "test_batch_end"],
    "predict": ["predict_batch_start", "predict_batch_end"],
}
ENDS = {
    "validate": ("validation_start", "validation_end"),
    "test": ("test_start", "test_end"),
    "predict": ("predict_start", "predict_end"),
}
ALL = [(kind, event) for kind in BATCH for event in (ENDS[kind][0], *BATCH[kind], ENDS[kind][1])]


class Scaled(etude.Task):
    """Gives its batch times two, and as loss its mean."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Dropout(0.5)

    def validation_step(self, batch):
        return etude.StepOutput(self.layer(batch).mean(), outputs=2 * batch)

    def predict_step(self, batch):
        return 2 * self.layer(batch)


class Listener:
    """Notes every event, and raises at one."""

    def __init__(self, fails=""):
        self.told = []
        self.fails = fails


def _method(event):
    def told(self, *_):
        self.told.append(event)
        if event == self.fails:
            raise ValueError("broken")

    return told


for _event in EVENTS:
    setattr(Listener, f"on_{_event}", _method(_event))


BATCHES = [torch.tensor([1.0, 3.0]), torch.tensor([5.0])]


class Closing:
    """Tells a feed's closing."""

    def __init__(self):
        self.feed = adopt(BATCHES, seed=1)
        self.closed = 0
        self.epoch = self.feed.epoch

    def close(self):
        self.closed += 1
        self.feed.close()


def passes(*listeners, task=None):
    return Passes(task or Scaled(), Events(listeners), TrainConfig(), CPU, Precision("float32", CPU), seed=1)


@pytest.mark.parametrize("kind", BATCH)
def test_a_pass_tells_of_its_begin_of_every_batch_and_of_its_end(kind):
    listener, feed = Listener(), Closing()

    getattr(passes(listener), kind)(feed)

    start, end = ENDS[kind]
    assert listener.told == [start, *BATCH[kind], *BATCH[kind], end]
    assert feed.closed == 1


def test_metrics_are_of_all_samples_and_predictions_one_a_batch_with_nothing_dropped_out():
    task = Scaled().train()
    told = passes(task=task)

    assert told.validate(adopt(BATCHES, seed=1)) == {"val/loss": 3.0}
    assert told.test(adopt(BATCHES, seed=1)) == {"test/loss": 3.0}
    assert [found.tolist() for found in told.predict(adopt(BATCHES, seed=1))] == [[2.0, 6.0], [10.0]]
    assert task.layer.training


@pytest.mark.parametrize("kind", ["validate", "test"])
def test_who_looks_at_a_pass_sees_each_batch_with_its_outputs(kind):
    seen = []

    getattr(passes(), kind)(adopt(BATCHES, seed=1), lambda batch, outputs: seen.append((batch, outputs)))

    assert [batch.tolist() for batch, _ in seen] == [[1.0, 3.0], [5.0]]
    assert all(torch.equal(outputs, 2 * batch) for batch, outputs in seen)


@pytest.mark.parametrize(("kind", "event"), ALL)
def test_an_exception_anywhere_in_a_pass_is_told_to_the_others_once(kind, event):
    broken, other, feed = Listener(event), Listener(), Closing()

    with pytest.raises(ValueError, match="broken"):
        getattr(passes(broken, other), kind)(feed)

    assert broken.told[-1] == event
    assert other.told.count("exception") == 1
    assert feed.closed == (event != ENDS[kind][0])
