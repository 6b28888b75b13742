"""Passes over data outside of training: a validation, a test, a prediction, and who is told of them."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, final

import torch

from etude.data.feeds.feed import Feed
from etude.data.nest import move
from etude.train.config import TrainConfig
from etude.train.evaluate import evaluate, evaluating, nothing_counted, undisturbed
from etude.train.step.failures import attempted
from etude.train.step.pieces import evaluated, sharing
from etude.train.step.precision import Precision
from etude.train.task import Task
from etude.train.turns import InOrder, Turns, in_turns
from etude.train.watch.events import Events, ending_by
from etude.train.watch.metrics import ScalarLog
from etude.train.world import ALONE, World

Seen = Callable[[object, object], None]
"""Takes a batch and what the step gave as `outputs`."""


def _unseen(batch: object, outputs: object) -> None:
    """Let a batch pass: the default of a `seen` that may be left out."""
    del batch, outputs


class _Moments(NamedTuple):
    """The events of one kind of pass."""

    start: Callable[[], None]
    batch_start: Callable[[object], None]
    batch_end: Seen
    end: Callable[[Mapping[str, float]], None]


@final
@dataclass(frozen=True)
class Passes:
    """Takes a task over feeds, on a device, with events from the first to the last; each feed is closed after its pass.

    Of several ranks in a `world` each takes its turns at the batches, and all see what is found, in order.
    An exception, from wherever in a pass, is told to everybody but the callback that raised it.
    """

    task: Task
    events: Events
    config: TrainConfig
    """How batches are taken along time: `tbptt_steps` and `carry_hiddens`."""
    device: torch.device
    precision: Precision
    seed: int
    say: Callable[[str], None] = print
    world: World = ALONE

    def validate(self, feed: Feed, seen: Seen = _unseen) -> dict[str, float]:
        """The metrics of the validation step, as `val/...`; `seen` takes every batch with its outputs."""
        told = self.events
        moments = _Moments(
            told.validation_start, told.validation_batch_start, told.validation_batch_end, told.validation_end
        )
        return self._measured(feed, self.task.validation_step, "val", moments, seen)

    def test(self, feed: Feed, seen: Seen = _unseen) -> dict[str, float]:
        """The metrics of the test step, as `test/...`; `seen` takes every batch with its outputs."""
        told = self.events
        moments = _Moments(told.test_start, told.test_batch_start, told.test_batch_end, told.test_end)
        return self._measured(feed, self.task.test_step, "test", moments, seen)

    def predict(self, feed: Feed) -> list[object]:
        """What `predict_step` gives for each batch, in order."""
        task, told, found = self.task, self.events, []
        task.to(self.device)
        with ending_by(told):
            told.predict_start()
            turns = self._turns()
            with closing(feed), undisturbed(self.seed), evaluating(task), torch.no_grad():
                for delivery in turns.each(in_turns(feed, self.world)):
                    if delivery is not None:
                        batch = move(delivery.batch, self.device)
                        told.predict_batch_start(batch)
                        with self.precision.forward():
                            turns.find((), batch, attempted(task.predict_step, batch))
                    for each in turns.shared():
                        found.append(each.outputs)
                        told.predict_batch_end(each.batch, each.outputs)
            told.predict_end()
        return found

    def _turns(self) -> InOrder | Turns:
        """This process's part of a pass without metrics."""
        if self.world.size == 1:
            return InOrder({}, ScalarLog())
        return Turns(self.world, {}, self.device, whole=True)

    def _measured(
        self, feed: Feed, step: Callable[[object], object], prefix: str, moments: _Moments, seen: Seen
    ) -> dict[str, float]:
        task, config = self.task, self.config
        task.to(self.device)

        def after(batch: object, outputs: object) -> None:
            moments.batch_end(batch, outputs)
            seen(batch, outputs)

        with ending_by(self.events):
            moments.start()
            with closing(feed):
                steps, carry = config.tbptt_steps, config.carry_hiddens
                world = sharing(self.world, steps=steps, carry=carry)
                taken, deliveries = evaluated(task, step, in_turns(feed, world), steps=steps, carry=carry)
                metrics = evaluate(
                    task,
                    deliveries,
                    taken,
                    prefix=prefix,
                    device=self.device,
                    seed=self.seed,
                    forward=self.precision.forward,
                    before=moments.batch_start,
                    after=after,
                    nothing=lambda: self.say(nothing_counted(prefix)),
                    world=world,
                )
            moments.end(MappingProxyType(metrics))
        return metrics
