"""A pass over a split by a run's weights: the metrics, who is told of it, and what is collected meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

from etude.app.runs.saving import AnyData
from etude.app.runs.telling import Telling
from etude.app.runs.tested import TestedLines
from etude.base.says import Say
from etude.data.feeds.feed import Delivery
from etude.tasks.config import Config
from etude.train.device import choose_device
from etude.train.evaluate import evaluate, nothing_counted
from etude.train.step.pieces import evaluated, sharing
from etude.train.step.precision import Precision
from etude.train.task import Task
from etude.train.turns import in_turns
from etude.train.watch.events import Events, ending_by
from etude.train.world import World


@final
@dataclass(frozen=True)
class Judging:
    """How a task is judged by a split of some data; of several ranks in a `world` each takes its turns at batches."""

    config: Config
    precision: Precision
    device: str
    world: World
    say: Say

    def measure(self, task: Task, data: AnyData, split: str, events: Events, lines: TestedLines) -> dict[str, float]:
        """The metrics of a split; `lines` collects what is predicted in a test."""
        judged, loop = split == "val", self.config.train
        tell = Telling.of(events, judged=judged)
        steps, carry = loop.tbptt_steps, loop.carry_hiddens
        world = sharing(self.world, steps=steps, carry=carry)
        step: Callable[[Any], Any] = task.validation_step if judged else task.test_step
        deliveries: Iterator[Delivery] = in_turns(data.feed(split, say=self.say), world)
        step, deliveries = evaluated(task, step, deliveries, steps=steps, carry=carry)

        def after(batch: object, outputs: object) -> None:
            if not judged:
                lines.add(batch, outputs)
            tell.after(batch, outputs)

        with ending_by(events):
            tell.start()
            metrics = evaluate(
                task,
                deliveries,
                step,
                prefix=split,
                device=choose_device(self.device),
                seed=self.config.run.seed,
                forward=self.precision.forward,
                before=tell.before,
                after=after,
                nothing=lambda: self.say(nothing_counted(split)),
                world=world,
                whole=not judged or events.takes_batches,
            )
            tell.end(MappingProxyType(metrics))
        return metrics
