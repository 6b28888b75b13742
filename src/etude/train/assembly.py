"""What of a run is made anew where the structure of its task changes: optimizers, scheduled values, the update."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from etude.base.horizon import Horizon
from etude.base.schedules import ScheduleSection
from etude.base.schedules.values import ScheduledValue
from etude.train.averaging import evaluated_weights
from etude.train.checkpointing import checkpoint_activations
from etude.train.compiling import compile_task
from etude.train.components import components
from etude.train.config import TrainConfig
from etude.train.optim.build import model_width
from etude.train.optim.freezing import constant_patterns, freeze, thawing
from etude.train.optim.slot import Slot
from etude.train.step.hiddens import hiddens_of
from etude.train.step.noise import noise_of
from etude.train.step.precision import Precision
from etude.train.step.ranks import Among
from etude.train.step.update import Update
from etude.train.structure import Learns, Made
from etude.train.task import Task
from etude.train.values import Values
from etude.train.watch.events import Events
from etude.train.world.config import DistributedConfig

ALONE_AS_USUAL = DistributedConfig()


class Seen(NamedTuple):
    """What callbacks see of a run that stays as it is."""

    config: Mapping[str, Any]
    data: Mapping[str, Any]


def ready(
    task: Task,
    config: TrainConfig,
    device: torch.device,
    say: Callable[[str], None],
    elsewhere: Collection[str],
    *,
    distributed: DistributedConfig = ALONE_AS_USUAL,
) -> None:
    """Bring a task to its device, frozen and compiled as the config says.

    A pattern may mean parameters that it has `elsewhere` alone: in other epochs.
    """
    task.to(device)
    freeze(task, constant_patterns(config.freeze), "train.freeze", elsewhere)
    if distributed.checkpoint_activations:
        layers = checkpoint_activations(task)
        say(f"The activations of {layers} layers are computed again in the backward pass.")
    if config.compile:
        compile_task(task, say)


@dataclass(frozen=True)
class Assembly:
    """Makes what trains a task, and lets those of its parts that have events be told of them."""

    config: TrainConfig
    horizon: Horizon
    device: torch.device
    precision: Precision
    events: Events
    seen: Seen
    others: Sequence[object]
    """Parts of the run that may have events and stay."""
    elsewhere: Collection[str]
    """Names of parameters that the task has in other epochs."""
    among: Among
    seed: int
    stage: str
    say: Callable[[str], None]
    distributed: DistributedConfig = ALONE_AS_USUAL

    def __call__(self, learns: Learns, task: Task) -> Made:
        """Make it for `task`, which is ready, from what is given for its structure."""
        config = self.config
        slots = learns.optimizers(task, self.horizon)
        for slot in slots:
            slot.drop_gradients()  # what a script computed before is no part of the run
        noise, noisy = noise_of(task, config.parameter_noise, seed=self.seed, stage=self.stage)
        values = self._values(learns, task, slots, noisy)
        self.events.listen(self._listeners(task, slots, values))
        tbptt = config.tbptt_steps is not None
        hiddens = hiddens_of(task, tbptt=tbptt, carry=config.carry_hiddens, device=self.device)
        update = Update(
            task,
            slots,
            device=self.device,
            precision=self.precision,
            clip_grad=config.clip_grad,
            seed=self.seed,
            stage=self.stage,
            say=self.say,
            hiddens=hiddens,
            noise=noise,
            extra_terms=learns.extra_terms,
            term_weights=learns.term_weights,
            events=self.events,
            among=self.among,
        )
        return Made(slots, values, hiddens, update, evaluated_weights(task, config.ema_decay, slots))

    def _values(self, learns: Learns, task: Task, slots: Sequence[Slot], noisy: Sequence[ScheduledValue]) -> Values:
        """All scheduled values of the run."""
        thawed = self._thawing(task, slots)
        scheduled = [*learns.values, *noisy, *thawed, *_accumulation(self.config.accumulate)]
        return Values(scheduled, self.horizon, model_width(task))

    def _thawing(self, task: Task, slots: Sequence[Slot]) -> list[ScheduledValue]:
        """What freezes and thaws parameters by schedule."""
        frozen = self.config.freeze
        values: list[ScheduledValue] = []
        if isinstance(frozen, Mapping):
            values += thawing(task, frozen, "train.freeze", self.elsewhere)
        for slot in slots:
            values += thawing(task, slot.freezes, "optimizer.groups", self.elsewhere)
        return values

    def _listeners(self, task: Task, slots: Sequence[Slot], values: Values) -> list[Any]:
        """The parts of the run that may have events of their own."""
        schedules = [value.schedule for value in values.all]
        return list(components(task, self.seen.data, slots=slots, schedules=schedules, others=self.others))


def _accumulation(spec: int | ScheduleSection) -> list[ScheduledValue]:
    """The batches of a step, where a schedule gives their number: taken as a group is formed, and logged."""
    return [ScheduledValue("train.accumulate", spec, lambda _: None, whole=True)] if not isinstance(spec, int) else []
