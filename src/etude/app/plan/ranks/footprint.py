"""What a training step holds in memory, found by imagining it: the task, its optimizers, and a step of each share."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from torch import Size, Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.app.dry_run import dry_run
from etude.app.phases import Phases, epochs_of
from etude.app.plan.ranks.imagined import Imagined, Kind, Level, cannot
from etude.app.plan.ranks.largest import Again, Shares, shares
from etude.app.plan.ranks.units import units
from etude.base.errors import ConfigError, EtudeError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.says import Say, unheard
from etude.data.feeds.feed import Delivery
from etude.data.nest import tensors
from etude.tasks.config import Config, LoadedConfig
from etude.train.averaging import Average
from etude.train.fit import Job, as_durations
from etude.train.fit import prepare as prepare_run
from etude.train.interrupt import Interrupts
from etude.train.learner import Learner
from etude.train.length import horizon as horizon_of
from etude.train.task import Task
from etude.train.values import Values

AT_ONCE = 2
"""Batches of a step that are imagined, at most: behind the second, gradients and activations are as many as ever."""


class Part(NamedTuple):
    """A tensor that is there between two steps."""

    shape: Size
    itemsize: int
    unit: int | None = None
    """Of a parameter: the number of the unit of the model that it is gathered with; None for the root."""
    trained: bool = True

    @property
    def bytes(self) -> int:
        """All of it."""
        return math.prod(self.shape) * self.itemsize

    def share(self, world: int) -> int:
        """Bytes of the largest of so many pieces along the first dimension, as fully sharded data parallelism cuts."""
        if not self.shape:
            return self.itemsize
        return math.ceil(self.shape[0] / world) * math.prod(self.shape[1:]) * self.itemsize


class Peaks(NamedTuple):
    """What one step holds beside what is kept, moment by moment, as far as it may be the most."""

    backward: Sequence[Level]
    """Forward and backward."""
    update: Sequence[Level]
    """While the optimizer steps."""


@dataclass(frozen=True)
class Footprint:
    """What a rank that has the whole model holds."""

    parameters: Sequence[Part]
    optimizer: Sequence[Part]
    average: Sequence[Part]
    buffers: int
    """Bytes."""
    steps: Mapping[int, Peaks]
    """By number of ranks: a step with the largest share of a batch."""
    shares: Shares
    horizon: Horizon
    accumulate: int
    """Batches of a step."""
    precision: str
    tokens: float | None
    """Targets of a step, all ranks together; None where not known."""
    notes: Sequence[str] = ()


def footprint(loaded: LoadedConfig, worlds: Sequence[int], say: Say = unheard) -> Footprint:
    """Imagine a step of each number of ranks.

    Data are read as in training, in a folder that is removed afterwards; weights take no memory. Raises what training
    raises before its first step, and ConfigError where a step cannot be imagined, or ranks have nothing to do.
    """
    found, largest = _imagined(loaded, worlds, say)
    if largest is None:
        return found
    grown, _ = _imagined(_only(loaded, largest), worlds, unheard)
    note = f"The model grows: memory is that of the structure from epoch {largest} on, the largest."
    return dataclasses.replace(grown, notes=[*grown.notes, note], horizon=found.horizon, shares=found.shares)


def _only(loaded: LoadedConfig, epoch: int) -> LoadedConfig:
    """The run as it is in an epoch, from its begin on."""
    config = loaded.at(epoch).config.in_epoch(epoch)
    return dataclasses.replace(loaded, config=config, later=())


def _imagined(loaded: LoadedConfig, worlds: Sequence[int], say: Say) -> tuple[Footprint, int | None]:
    """A footprint, and the epoch at which the model is larger than it, if it comes to be."""
    imagined = Imagined()

    def make(kind: Any, config: Config, processor: Any) -> Task:
        return _emptied(imagined, kind.task(config, processor))

    with dry_run(_bare(loaded), "plan", say, task=make) as (job, config):
        steps = _Steps(job, imagined, worlds)
        largest = None
        if isinstance(job.structure, Phases) and job.structure.changes:
            most = max(job.structure.changes, key=lambda grown: grown.parameters)
            largest = most.epoch if most.parameters > sum(p.numel() for p in job.task.parameters()) else None
        with _refusing():
            return steps.footprint(checkpoints=config.distributed.checkpoint_activations), largest


def _emptied(imagined: Imagined, task: Task) -> Task:
    """A task without its numbers, which stays where it is."""
    imagined.emptied(task)
    vars(task)["to"] = lambda *_, **__: task
    return task


def _bare(loaded: LoadedConfig) -> LoadedConfig:
    """The same run with nothing that its memory does not hang on."""
    config = loaded.config
    sections: dict[str, object] = {
        "data": config.data.without_workers(),
        "train": config.train.model_copy(update={"device": "cpu", "compile": False}),
        "init": config.init.model_copy(update={"from_": []}),
    }
    return dataclasses.replace(loaded, config=config.model_copy(update=sections))


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except EtudeError:
        raise
    except Exception as error:
        raise cannot(error) from error


class _Steps:
    """Imagines steps of a job."""

    def __init__(self, job: Job, imagined: Imagined, worlds: Sequence[int]) -> None:
        self._job, self._imagined, self._worlds = job, imagined, worlds
        self._feed = job.train

    def footprint(self, *, checkpoints: bool) -> Footprint:
        """Take a step of each number of ranks, and write down what it held."""
        job = self._job
        until = as_durations(job.config.max_duration)
        horizon = job.horizon or horizon_of(until, self._feed, job.config.accumulate)
        job.horizon = horizon
        epochs, values = epochs_of(job.config, self._feed), Values(job.values, horizon)
        looked = shares(self._feed, values, self._worlds, epochs, horizon.steps_per_epoch or 1)
        for world in self._worlds:
            _refuse_idle(looked, world)
        job.train = again = Again(looked.largest[self._worlds[0]])
        with self._imagined:
            learner = prepare_run(job, Interrupts()).learner
            count = max(1, round(horizon.batches_per_step))
            self._mark(learner)
            if checkpoints:
                _checkpoint(learner.task)
            self._step(learner, min(AT_ONCE, count))
            steps = {}
            for world in self._worlds:
                again.take(looked.largest[world])
                steps[world] = self._step(learner, min(AT_ONCE, count))
        return Footprint(
            parameters=self._parameters(learner.task),
            optimizer=[_part(tensor) for slot in learner.slots for tensor in _leaves(slot.state_dict()["state"])],
            average=[_part(tensor) for tensor in _averaged(learner)],
            buffers=_bytes(learner.task.buffers()),
            steps=steps,
            shares=looked,
            horizon=horizon,
            accumulate=count,
            precision=learner.precision.name,
            tokens=horizon.tokens_per_step,
        )

    def _mark(self, learner: Learner) -> None:
        """Let the memory of weights and gradients be known as what it is."""
        imagined, task = self._imagined, learner.task
        imagined.mark(task.parameters(), Kind.PARAMETERS)
        imagined.mark(task.buffers(), Kind.BUFFERS)
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda parameter: imagined.mark([parameter.grad], Kind.GRADIENTS)
                )

    def _step(self, learner: Learner, count: int) -> Peaks:
        """Take a step of so many batches."""
        imagined, stepped = self._imagined, learner.precision.step
        learner.begin_epoch(Progress())  # nothing is carried over from other batches
        group = list(islice(learner.feed.epoch(0), count))
        imagined.mark([tensor for tensor in _of_batches(group) if not tensor.is_floating_point()], Kind.OTHER)
        imagined.forget()
        backward: list[Level] = []

        def step(*args: Any, **options: Any) -> None:
            imagined.mark((p.grad for slot in learner.slots for p in slot.parameters), Kind.GRADIENTS)
            backward.extend(imagined.levels())
            imagined.forget()
            stepped(*args, **options)

        vars(learner.precision)["step"] = step
        try:
            learner.step(group, Progress())
        finally:
            del vars(learner.precision)["step"]
        update = imagined.levels()
        for slot in learner.slots:
            imagined.mark(_leaves(slot.state_dict()["state"]), Kind.OPTIMIZER)
        imagined.mark(_averaged(learner), Kind.AVERAGE)
        return Peaks(backward or update, update)

    def _parameters(self, task: nn.Module) -> list[Part]:
        unit_of = {id(parameter): number for number, unit in enumerate(units(task)) for parameter in unit.parameters()}
        return [Part(p.shape, p.element_size(), unit_of.get(id(p)), trained=p.requires_grad) for p in task.parameters()]


def _checkpoint(task: nn.Module) -> None:
    """Let the units of a task compute again what is inside of them, in place of keeping it."""
    for unit in units(task):
        vars(unit)["forward"] = partial(checkpoint, unit.forward, use_reentrant=False)


def _refuse_idle(shares: Shares, world: int) -> None:
    """Raise ConfigError for more ranks than the largest batch has samples."""
    idle, most = shares.idle(world), shares.most
    if idle:
        raise ConfigError(
            f"--world is {world:,}, but the largest batch of this run has {most:,} samples, so that {idle:,} of them "
            f"would have nothing to do; raise train.batch_size (or train.batch_tokens), or lower --world to {most:,}."
        )


def _of_batches(group: Sequence[Delivery]) -> Iterator[Tensor]:
    for delivery in group:
        yield from tensors(delivery.batch)


def _averaged(learner: Learner) -> list[Tensor]:
    """The tensors of a moving average, where one is kept."""
    average = learner.average
    if not isinstance(average, Average):
        return []
    return list({id(tensor): tensor for tensor in (average.weights() or {}).values()}.values())


def _leaves(nest: object) -> Iterator[Tensor]:
    match nest:
        case Tensor():
            yield nest
        case Mapping():
            for part in nest.values():
                yield from _leaves(part)


def _part(tensor: Tensor) -> Part:
    return Part(tensor.shape, tensor.element_size())


def _bytes(those: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in those)
