"""Which tensors of a module are taken from where: matched by name, refused where they do not fit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, filterfalse, starmap
from typing import Any

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.base.near import near_names
from etude.base.patterns import TASKS_MODEL, matches, renamed, renames
from etude.model.growth import Growth, plan_pairs, write
from etude.model.growth.axes import Axis
from etude.train.memory.preload.source import Source

SHOWN = 3
"""Names that a sentence lists."""


@dataclass(frozen=True)
class Transfer:
    """What one source gives to a module."""

    source: Source
    taken: Mapping[str, str]
    """By the module's names: what each tensor that is loaded is called in the source."""
    left: Sequence[str]
    """The module's tensors that it does not load."""
    unused: Sequence[str]
    """The source's tensors that are not loaded."""
    converted: Sequence[str]
    """What becomes of types that differ, as clauses."""
    grown: Mapping[str, Sequence[Axis]] = field(default_factory=dict)
    """Of tensors that are wider than what is loaded: where it lies in them."""

    def __str__(self) -> str:
        """Say what is loaded, and what is not."""
        count = len(self.taken) + len(self.left)
        notes = "".join(f", {note}" for note in (*self.source.notes, *self.converted))
        wider = f", {len(self.grown)} of them into wider ones" if self.grown else ""
        not_loaded = f"; not loaded are {listed(self.left)}" if self.left else ""
        unused = f"; without a use here are {listed(self.unused)}" if self.unused else ""
        return (
            f"Loaded {len(self.taken)} of {count} tensors from {self.source.place}{wider}{notes}{not_loaded}{unused}."
        )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def preload(module: nn.Module, sources: Sequence[Source]) -> list[Transfer]:
    """Load weights into a module, in place, of several sources the later ones last; what each of them gave.

    Whether a parameter is trained stays as it is. Raises ConfigError, with every problem at once, before anything is
    changed.
    """
    target = _Target(module)
    problems: list[str] = []
    transfers: list[Transfer] = []
    for source in sources:
        matching = _Matching(target, source)
        transfers.append(matching.transfer())
        problems += matching.problems
    if problems:
        raise ConfigError(problems)
    for transfer in transfers:
        target.load(transfer)
    return transfers


class _Target:
    """The tensors of a module by name: parameters, and buffers that are saved."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        state: Mapping[str, Any] = module.state_dict(keep_vars=True)
        self.tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        self._twins: dict[int, list[str]] = {}
        for name, value in self.tensors.items():
            self._twins.setdefault(id(value), []).append(name)

    def twins(self, name: str) -> Sequence[str]:
        """All names of the tensor of that name, as weights have several that are tied."""
        return self._twins[id(self.tensors[name])]

    def load(self, transfer: Transfer) -> None:
        """Change the values of what is taken."""
        with torch.no_grad():
            for name, given in transfer.taken.items():
                value = transfer.source.tensors[given]
                if name in transfer.grown:
                    write(value, self.tensors[name], transfer.grown[name])
                else:
                    self.tensors[name].copy_(value)


class _Matching:
    """A source held against a module, and what is wrong with it."""

    def __init__(self, target: _Target, source: Source) -> None:
        self._target, self._source = target, source
        self._wanted = source.wanted
        self._given = self._names()
        self.problems: list[str] = list(self._misfits())

    def transfer(self) -> Transfer:
        """What is taken; of no use where there are problems."""
        wanted = list(filter(self._is_wanted, self._target.tensors))
        taken = self._taken(wanted)
        if not self.problems:  # else it may be for them that something is missing
            self.problems += self._missing(wanted, taken)
        self.problems += self._of_twins(taken)
        grown = self._grown(taken)
        self.problems += self._misshapen(list(filterfalse(grown.__contains__, taken)), taken)
        self.problems += chain.from_iterable(starmap(self._refused, taken.items()))
        used = set(taken.values())
        return Transfer(
            self._source,
            taken,
            left=list(filterfalse(taken.__contains__, self._target.tensors)),
            unused=list(filterfalse(used.__contains__, self._source.tensors)),
            converted=sorted(set(self._conversions(taken))),
            grown=grown,
        )

    # -- names ---------------------------------------------------------------------------------------------------------

    def _names(self) -> dict[str, str]:
        """By what they are called after renaming: the names in the source."""
        return {renamed(name, self._wanted.rename): name for name in self._source.tensors}

    def _misfits(self) -> Iterator[str]:
        """Patterns that mean nothing, and names that two tensors would have."""
        yield from chain.from_iterable(map(self._misfit_of_rename, self._wanted.rename))
        yield from map(self._of_one_name, filterfalse(set(self._given.values()).__contains__, self._source.tensors))
        yield from chain.from_iterable(map(self._misfit_of_match, self._wanted.patterns))

    def _misfit_of_rename(self, pattern: str) -> Iterator[str]:
        """A sentence about a pattern that renames nothing."""
        given = list(self._source.tensors)
        if not any(renames(name, pattern) for name in given):
            yield (
                f"{self._source.key}.rename: {pattern!r} matches no tensor of {self._source.place}; "
                f"{near_names(pattern, given)}."
            )

    def _of_one_name(self, name: str) -> str:
        """A sentence about a tensor of the source that becomes the same as another."""
        key, place, new = self._source.key, self._source.place, renamed(name, self._wanted.rename)
        return f"{key}.rename: both {name} and {self._given[new]} of {place} become {new}."

    def _misfit_of_match(self, pattern: str) -> Iterator[str]:
        """A sentence about a pattern that means nothing of the model, or nothing of the source."""
        own, given = list(self._target.tensors), list(self._given)
        said = f"{self._source.key}.match: {pattern!r} matches no tensor of"
        if not any(matches(name, pattern) for name in own):
            yield f"{said} the model; {near_names(pattern, own)}."
        elif not any(matches(name, pattern) for name in chain(given, map(TASKS_MODEL.__add__, given))):
            yield f"{said} {self._source.place}; {near_names(pattern, given)}."

    def _taken(self, wanted: Sequence[str]) -> dict[str, str]:
        """What those of these tensors that are in the source are called there."""
        found = {name: self._found(name) for name in wanted}
        return {name: given for name, given in found.items() if given is not None}

    def _is_wanted(self, name: str) -> bool:
        return any(matches(name, pattern) for pattern in self._wanted.patterns)

    def _found(self, name: str) -> str | None:
        """What the tensor of that name is called in the source, under one of its names; None where it is not there."""
        names = chain.from_iterable(map(_spellings, (name, *self._target.twins(name))))
        return next(filter(None, map(self._given.get, names)), None)

    def _missing(self, wanted: Sequence[str], taken: Mapping[str, str]) -> Iterator[str]:
        """What must be in the source, and is not."""
        missing = list(filterfalse(taken.__contains__, wanted))
        key, place = self._source.key, self._source.place
        if self._wanted.required and missing:
            yield (
                f"{key}: {place} has no {listed(missing)} (its first names are {listed(list(self._given))}); narrow "
                f"{key}.match, rename what is called otherwise there, or let {key}.required = false."
            )
        elif wanted and not taken:
            yield f"{key}: {place} has nothing of what match means; its first names are {listed(list(self._given))}."

    # -- values --------------------------------------------------------------------------------------------------------

    def _grown(self, taken: Mapping[str, str]) -> Mapping[str, Sequence[Axis]]:
        """How the tensors are filled that are wider than what is loaded into them, where that is asked for."""
        pairs = {name: given for name, given in taken.items() if self._is_wider(name, given)}
        if not pairs or not self._wanted.grow:
            return {}
        return self._axes(pairs)

    def _axes(self, pairs: Mapping[str, str]) -> Mapping[str, Sequence[Axis]]:
        """How tensors are filled from smaller ones; without a dimension where nobody knows."""
        structure = self._source.structure
        if structure is None:
            self.problems.append(
                f"{self._source.key}: grow = true needs a run, or a checkpoint of one, whose config tells what its "
                f"tensors are made up of, but {self._source.place} is none."
            )
            return dict.fromkeys(pairs, ())
        try:
            return plan_pairs(structure, self._target.module, pairs, Growth(), where=self._source.key)
        except ConfigError as error:
            self.problems += [f"{problem}." for problem in error.problems]
            return dict.fromkeys(pairs, ())

    def _is_wider(self, name: str, given: str) -> bool:
        """Whether a tensor of the model holds more than another, and no less along any dimension."""
        own, value = self._target.tensors[name], self._source.tensors[given]
        return own.shape != value.shape and _has_room(own, value)

    def _misshapen(self, names: Sequence[str], taken: Mapping[str, str]) -> Iterator[str]:
        """Those of these tensors of another shape than what would be loaded into them, the first in place of all."""
        own, values = self._target.tensors, self._source.tensors
        found = [name for name in names if own[name].shape != values[taken[name]].shape]
        for name in found[:1]:
            yield self._of_shapes(name, taken[name], len(found) - 1)

    def _of_shapes(self, name: str, given: str, others: int) -> str:
        """A sentence about a tensor that has another shape than what would be loaded, as others have."""
        own, value = self._target.tensors[name], self._source.tensors[given]
        more = f" (and {others:,} more differ)" if others else ""
        return (
            f"{self._source.key}: {given} of {self._source.place} has shape {_shape(value)}, but {name} of the "
            f"model has {_shape(own)}{more}; {self._instead(own, value)}."
        )

    def _refused(self, name: str, given: str) -> Iterator[str]:
        """Why a tensor cannot take the values of another."""
        own, value = self._target.tensors[name], self._source.tensors[given]
        key, place = self._source.key, self._source.place
        if _kind(own) != _kind(value):
            yield f"{key}: {given} of {place} is {_shown(value)}, but {name} of the model is {_shown(own)}."
        elif isinstance(own, nn.Parameter) and not value.to(own.dtype).isfinite().all():
            yield f"{key}: {given} of {place} is not finite as {_shown(own)}."

    def _instead(self, own: Tensor, value: Tensor) -> str:
        """What to do about shapes that differ."""
        leave = f"leave it out of {self._source.key}.match"
        return f"add grow = true to have it in the wider one, or {leave}" if _has_room(own, value) else leave

    def _of_twins(self, taken: Mapping[str, str]) -> Iterator[str]:
        """Tied weights that the source holds with values that differ."""
        for name, given in taken.items():
            first = taken.get(self._target.twins(name)[0], given)
            tensors = self._source.tensors
            if first != given and not torch.equal(tensors[first], tensors[given]):
                yield (
                    f"{self._source.key}: {first} and {given} of {self._source.place} differ, but are one tensor of "
                    f"the model, {name}; leave one of them out of {self._source.key}.match."
                )

    def _conversions(self, taken: Mapping[str, str]) -> Iterator[str]:
        for name, given in taken.items():
            own, value = self._target.tensors[name], self._source.tensors[given]
            if own.dtype != value.dtype:
                yield f"{_shown(value)} converted to {_shown(own)}"


def _spellings(name: str) -> tuple[str, ...]:
    """A name as it is, and as it is inside and outside of a task."""
    return name, name.removeprefix(TASKS_MODEL), TASKS_MODEL + name


def _has_room(own: Tensor, value: Tensor) -> bool:
    """Whether a tensor has as many dimensions as another, and each as long or longer."""
    return own.ndim == value.ndim and all(new >= old for new, old in zip(own.shape, value.shape, strict=True))


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _shown(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _kind(value: Tensor) -> object:
    """What types can be converted into each other: real numbers, complex ones, and of others each for itself."""
    if value.is_floating_point() or value.is_complex():
        return value.is_complex()
    return value.dtype


def as_json(transfers: Iterable[Transfer]) -> dict[str, Any]:
    """What was loaded: each source with all names, and for each tensor of the module what it has in the end."""
    tables: list[dict[str, Any]] = []
    tensors: dict[str, Any] = {}
    for number, one in enumerate(transfers):
        tables.append(
            {
                "checkpoint": str(one.source.wanted.checkpoint),
                "read": str(one.source.place),
                "sha256": one.source.sha256,
                "notes": [*one.source.notes, *one.converted],
                "loaded": len(one.taken),
                "into_wider_ones": list(one.grown),
                "not_loaded": list(one.left),
                "unused": list(one.unused),
            }
        )
        tensors |= {name: {"from": number, "name": given} for name, given in one.taken.items()}
    return {"from": tables, "tensors": tensors}
