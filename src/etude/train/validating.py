"""Validations of a run: the pass, its row, and what it says about the best weights."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from time import perf_counter
from types import MappingProxyType
from typing import final

from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.data.feeds.feed import Delivery, Feed
from etude.train.evaluate import nothing_counted
from etude.train.learner import Learner
from etude.train.memory.state import State
from etude.train.rows import head
from etude.train.stopping import Stopping
from etude.train.turns import in_turns
from etude.train.watch.events import Events
from etude.train.watch.record import Record


@final
class Validation:
    """Judges a learner by a split; without data (`feed` is None) there is nothing to judge it by."""

    def __init__(
        self,
        learner: Learner,
        feed: Feed | None,
        *,
        stopping: Stopping,
        record: Record,
        events: Events,
        tried: int,
        say: Callable[[str], None],
    ) -> None:
        self.feed = feed
        self.stopping = stopping
        self.tried = tried
        """Batches that are run before the first step."""
        self.is_due = True
        """Whether the last one was due; the end of a run validates off the beat too."""
        self.metrics: dict[str, float] = {}
        """What the last one measured."""
        self._learner = learner
        self._record = record
        self._events = events
        self._say = say
        self._counted = True
        """Whether any target counted in the last one."""

    def try_out(self, progress: Progress) -> None:
        """Validate on a few batches before the first step; what they give is thrown away."""
        if self.feed is None or self.tried == 0:
            return
        batches = in_turns(self.feed, self._learner.judging)
        metrics = self._evaluate(islice(batches, self.tried), Events(()), progress)
        self._check_monitor(metrics)
        if self._counted:
            self._learner.check(metrics)

    def _evaluate(self, deliveries: Iterator[Delivery], events: Events, progress: Progress) -> dict[str, float]:
        self._counted = True
        return self._learner.evaluate(deliveries, events, progress, self._nothing_counted)

    def _nothing_counted(self) -> None:
        self._counted = False
        self._say(f"{nothing_counted('val')} No schedule, patience or best weights follow this validation.")

    def run(self, state: State, *, due: bool) -> bool:
        """Validate, log, and let all that follows validations take it in; whether it was the best so far."""
        if self.feed is None:
            return False
        begun = perf_counter()
        self.is_due = due
        self._events.validation_start()
        batches = in_turns(self.feed, self._learner.judging)
        self.metrics = metrics = self._evaluate(batches, self._events, state.progress)
        if state.position is None:
            metrics |= _of_epoch(metrics)
        self._record.write(head(state.progress) | metrics | {"time/validation_seconds": perf_counter() - begun})
        self._check_monitor(metrics)
        improved, value = self._judge(state, due=due)
        if due:
            self._learner.follow_validation(value, metrics, state.progress)
        self._events.validation_end(MappingProxyType(metrics))
        return improved

    def _judge(self, state: State, *, due: bool) -> tuple[bool, float | None]:
        """Whether the validation was the best so far, and what it is judged by; None where it did not give that."""
        monitor = self.stopping.monitor
        if monitor.endswith("/epoch_loss") and state.position is not None:
            return False, None  # an epoch's loss judges at epochs' ends alone
        value = (self.metrics if monitor.startswith("val/") else self._record.last).get(monitor)
        return self.stopping.record(value, state.progress, due=due), value

    def _check_monitor(self, metrics: Mapping[str, float]) -> None:
        """Refuse a metric that nothing gives; one of training is known once a step was logged."""
        monitor, known = self.stopping.monitor, self._known(metrics)
        if monitor in known:
            self.stopping.check_mode()
        elif not (self.stopping.known or self._may_come(monitor)):
            raise ConfigError(
                f"train.monitor is {monitor!r}, which this run does not log; it logs {', '.join(sorted(known))}."
            )

    def _known(self, metrics: Mapping[str, float]) -> set[str]:
        """The metrics that the run has given so far."""
        known = {*metrics, *(name for name in self._record.last if name.startswith("train/"))}
        return known | {"val/epoch_loss"} if "val/loss" in metrics else known

    def _may_come(self, monitor: str) -> bool:
        """Whether no step has given a metric of training yet, or no target has counted for one of validation."""
        if not self._counted:
            return True
        return monitor.startswith("train/") and ("train/loss" not in self._record.last or monitor == "train/epoch_loss")


def _of_epoch(metrics: Mapping[str, float]) -> dict[str, float]:
    """The loss, where there is one, by the name that it has at the end of an epoch."""
    return {"val/epoch_loss": metrics["val/loss"]} if "val/loss" in metrics else {}
