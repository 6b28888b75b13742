"""Weights that were trained before, read from wherever they lie."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, filterfalse
from pathlib import Path

import torch
from torch import Tensor, nn

from etude.base.errors import StorageError
from etude.model.init_source import InitSource
from etude.train.memory.checkpoint.content import AVERAGED, MANIFEST, MODEL
from etude.train.memory.checkpoint.reader import is_checkpoint, read_tensors, read_weights
from etude.train.memory.checkpoint.shards import file_by_tensor
from etude.train.memory.preload.place import INDEX, PICKLED, place_of
from etude.train.memory.preload.state_dict import read_state_dict

SAFE = ".safetensors"


@dataclass(frozen=True)
class Source:
    """What one table of `init.from` names, read."""

    wanted: InitSource
    key: str
    """What the table is called where something is wrong with it, such as `init.from[0]`."""
    place: Path
    """The file or folder that was read."""
    tensors: Mapping[str, Tensor]
    notes: Sequence[str]
    """How it was read, as clauses."""
    structure: nn.Module | None = None
    """The model whose tensors they are, where it is known and asked for: what they are made up of."""

    @cached_property
    def sha256(self) -> str:
        """A hash of the content: names, types, shapes and values."""
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def read_source(wanted: InitSource, key: str) -> Source:
    """Read what a table of `init.from` names; of a checkpoint the averaged weights, where an average was kept.

    Raises ConfigError, which begins with `key`, where nothing is there, and StorageError for what is damaged.
    """
    place, note = place_of(wanted.checkpoint, key)
    tensors, notes = _read(place)
    for name in filterfalse(lambda name: _is_plain(tensors[name]), tensors):
        raise StorageError(f"{place} holds {name} as a tensor that is sparse, quantised or empty of values.")
    return Source(wanted, key, place, tensors, [*filter(None, [note]), *notes])


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor has all its values, as they are."""
    return value.layout is torch.strided and not value.is_quantized and not value.is_meta


def _read(place: Path) -> tuple[dict[str, Tensor], list[str]]:
    if place.is_dir():
        return _read_folder(place)
    if place.suffix != SAFE:
        return read_state_dict(place)
    if (place.parent / MANIFEST).is_file() and place.name in {MODEL, AVERAGED}:
        return read_weights(place.parent, averaged=place.name == AVERAGED), []
    return read_tensors(place), []


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    if (folder / INDEX).is_file() and not is_checkpoint(folder):
        return _read_parts(folder), []
    if not (folder / MODEL).exists() and (folder / PICKLED).is_file():
        return read_state_dict(folder / PICKLED)
    return read_weights(folder, averaged=True), []


def _read_parts(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder that holds them in several files."""
    names = sorted(set(file_by_tensor(folder / INDEX).values()))
    for name in filterfalse(partial(_is_file_of, folder), names):
        raise StorageError(f"{folder / INDEX} names {name!r}, which is not a file of its folder.")
    return dict(chain.from_iterable(read_tensors(folder / name).items() for name in names))


def _is_file_of(folder: Path, name: str) -> bool:
    """Whether a name is that of a file in the folder itself."""
    return Path(name).name == name and (folder / name).is_file()
