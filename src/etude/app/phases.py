"""The phases of a run whose config changes with its epochs: which parts it has in which, and how they grow."""

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from etude.base.config.components import Imported
from etude.base.config.imports import resolve_import
from etude.base.config.loading import plain_data
from etude.base.errors import ConfigError
from etude.base.files import write_json
from etude.base.progress import Progress
from etude.base.says import Say
from etude.base.schedules.structural import SHAPING
from etude.data.feeds.feed import Feed
from etude.model.growth import Transfer, plan_transfer
from etude.tasks.config import Config, LoadedConfig
from etude.train.config import TrainConfig
from etude.train.job import as_durations
from etude.train.length import horizon
from etude.train.structure import Change, Learns
from etude.train.task import Task

EPOCH = "epoch "
REPORT = "growth.json"
"""The file of a run's folder that holds what becomes of each tensor in each change."""
MOST = 300
"""Epochs of a run whose length is not known that are planned ahead."""


class Grown(NamedTuple):
    """A change of a run's structure, planned."""

    epoch: int
    """The epoch, counted from 0, at whose begin it comes."""
    names: Mapping[str, Tensor]
    """The parameters that there are from then on, without their values."""
    transfer: Transfer

    @property
    def parameters(self) -> int:
        """How many numbers they are."""
        return sum(parameter.numel() for parameter in self.names.values())


def name_of(epoch: int) -> str:
    """What the structure that is taken up at the begin of an epoch is called; that of the first has no name."""
    return f"{EPOCH}{epoch}" if epoch else ""


def epoch_of(name: str) -> int:
    """The epoch at whose begin a structure is taken up. Raises LookupError for a name of none."""
    number = name.removeprefix(EPOCH)
    if name and (number == name or not number.isdecimal()):
        raise LookupError(f"there is no structure {name!r}")
    return int(number or 0)


def config_of(loaded: LoadedConfig, structure: str) -> Config:
    """The config by which a structure is made."""
    epoch = epoch_of(structure)
    config = loaded.at(epoch).config
    return config.in_epoch(epoch) if follows_epochs(config) else config


def follows_epochs(config: Config) -> bool:
    """Whether the model is made by a function of the epoch: one that takes an `epoch`, as `build_model` does."""
    if not isinstance(config.model, Imported):
        return False
    make = resolve_import(config.model.type, "model.type")
    return callable(make) and "epoch" in inspect.signature(make).parameters


def epochs_of(train: TrainConfig, feed: Feed) -> int:
    """How many epochs a run has at most, as far as that is known."""
    known = horizon(as_durations(train.max_duration), feed, train.accumulate)
    if known.steps is None or not known.steps_per_epoch:
        return MOST
    return min(MOST, math.ceil(known.steps / known.steps_per_epoch))


@final
class Phases:
    """Which structure a run has, epoch by epoch: a function of its config."""

    def __init__(self, loaded: LoadedConfig, make: Callable[[Config], Learns], bare: Callable[[Config], Task]) -> None:
        self._loaded = loaded
        self._make = make
        self._bare = bare
        self.changes: Sequence[Grown] = ()
        """Those that were planned."""
        self._begins = [0]
        """By epoch, as far as asked for: the one at whose begin the structure that is in force was taken up."""
        self._newest: tuple[LoadedConfig, tuple[Any, ...] | None] = (loaded, None)
        """The config of the last of these epochs, and what tells its structure from another."""

    @cached_property
    def _follows_epochs(self) -> bool:
        return follows_epochs(self._loaded.config)

    @property
    def is_one(self) -> bool:
        """Whether there is but one."""
        return not self._loaded.later and not self._follows_epochs

    def at(self, progress: Progress, name: str) -> Change | None:
        """The change where an epoch begins with another structure than it should have."""
        due = name_of(self._begun(progress.epoch))
        return None if due == name else self.named(due)

    def named(self, name: str) -> Change:
        """The change to a structure."""
        epoch = epoch_of(name)
        if self.is_one and epoch:
            raise LookupError(f"there is no structure {name!r}")
        config = self._config(epoch)
        return Change(
            name,
            partial(self._make, config),
            growth=self._loaded.config.growth,
            where=f"At epoch {epoch}",
            anew=epoch > 0 and _judges(self._config(epoch - 1)) != _judges(config),
        )

    def names(self) -> Collection[str]:
        """The parameters of all structures that were planned."""
        return frozenset(name for one in self.changes for name in one.names)

    def plan(self, epochs: int) -> None:
        """Plan every change of a run of so many epochs, on the meta device.

        Raises ConfigError where one of them cannot be, naming epoch and parameter.
        """
        self.changes = list(self._changes(epochs))

    def _changes(self, epochs: int) -> Iterator[Grown]:
        growth = self._loaded.config.growth
        before = self._made_bare(0)
        for epoch in range(1, epochs):
            if self._begun(epoch) == epoch:
                after = self._made_bare(epoch)
                transfer = plan_transfer(before, after, growth, where=f"At epoch {epoch}")
                yield Grown(epoch, dict(after.named_parameters()), transfer)
                before = after

    def _begun(self, epoch: int) -> int:
        """The epoch at whose begin the structure that is in force in an epoch was taken up."""
        while len(self._begins) <= epoch:
            self._begins.append(self._next(len(self._begins)))
        return self._begins[epoch]

    def _next(self, epoch: int) -> int:
        """The same, of the first epoch that it is not known of."""
        loaded, before = self._newest
        here = self._loaded.at(epoch)
        if here is loaded and not self._follows_epochs:
            return self._begins[-1]
        if before is None:
            before = self._signature(epoch - 1)
        now = self._signature(epoch)
        self._newest = here, now
        return self._begins[-1] if now == before else epoch

    def _signature(self, epoch: int) -> tuple[Any, ...]:
        """What two epochs have in common that have the same structure."""
        config = self._config(epoch)
        plain = plain_data(config)
        shape = tuple(repr(plain.get(name)) for name in SHAPING)
        return (*shape, structure_of_module(self._made_bare(epoch)) if self._follows_epochs else None)

    def _config(self, epoch: int) -> Config:
        found = self._loaded.at(epoch).config
        return found.in_epoch(epoch) if self._follows_epochs else found

    def _made_bare(self, epoch: int) -> Task:
        """The task of an epoch without its weights, where its parts can be made so."""
        config = self._config(epoch)
        try:
            return self._without_weights(config)
        except ConfigError as error:
            raise ConfigError([f"At epoch {epoch}: {problem}" for problem in error.problems]) from error

    def _without_weights(self, config: Config) -> Task:
        try:
            with torch.device("meta"):
                return self._bare(config)
        except (NotImplementedError, RuntimeError):
            return self._bare(config)


def structure_of_module(module: nn.Module) -> tuple[Any, ...]:
    """What a module is made of: its parts by name, kind and shape."""
    parts = [(name, type(part).__qualname__, part.extra_repr()) for name, part in module.named_modules()]
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in module.state_dict().items()]
    return tuple(parts), tuple(shapes)


def _judges(config: Config) -> str:
    """What validations are measured by."""
    plain = plain_data(config)
    return repr([plain.get(name) for name in ("task", "loss")])


def told(grown: Grown) -> str:
    """A change as a line of the log."""
    counts = grown.transfer.counts
    return (
        f"At epoch {grown.epoch} the model comes to have {grown.parameters:,} parameters: {counts.copied:,} copied, "
        f"{counts.new:,} new, {counts.dropped:,} dropped."
    )


def tell_of_growth(phases: Phases, epochs: int, folder: Path, say: Say) -> None:
    """Plan how a run grows, say it, and write it down whole in the run's folder.

    Raises ConfigError where it cannot be.
    """
    if phases.is_one:
        return
    phases.plan(epochs)
    for one in phases.changes:
        say(told(one))
    write_json(folder / REPORT, {"changes": list(map(_row, phases.changes))})


def _row(grown: Grown) -> dict[str, Any]:
    return {"epoch": grown.epoch, "parameters": grown.parameters, "tensors": grown.transfer.table()}
