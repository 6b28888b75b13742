"""Tensors of one kind in several files, as Hugging Face names shards: each holds whole ones, an index tells where."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import filterfalse
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from etude.base.errors import StorageError
from etude.base.files import read_json
from etude.train.memory.checkpoint.damaged import reading_of

SUFFIX = ".safetensors"
_SHARD = re.compile(r"(.+)-\d{5,}-of-\d{5,}\.safetensors")


def shard_name(name: str, number: int, count: int) -> str:
    """What the file is called that holds a part of what `name` would.

    >>> shard_name("model.safetensors", 1, 2)
    'model-00001-of-00002.safetensors'
    """
    return f"{name.removesuffix(SUFFIX)}-{number:05}-of-{count:05}{SUFFIX}"


def index_name(name: str) -> str:
    """What the index of its shards is called."""
    return f"{name}.index.json"


def index_of(files: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """An index: which file holds which tensor, and how many bytes they are together."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}


def parts_of(name: str, files: Iterable[str]) -> list[str]:
    """Those of some files that hold what `name` stands for: itself, or its shards; none where neither is there.

    >>> parts_of("a.safetensors", ["a-00001-of-00001.safetensors", "a.safetensors.index.json", "b.safetensors"])
    ['a-00001-of-00001.safetensors']
    """
    return sorted(file for file in files if file == name or _whole_of(file) == name)


def files_of(name: str, folder: Path) -> list[Path]:
    """The files in a folder that hold what `name` stands for, with the index of shards."""
    there = [path.name for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    index = [file for file in there if file == index_name(name)]
    return [folder / file for file in [*index, *parts_of(name, there)]]


def _whole_of(file: str) -> str | None:
    """What a shard is a part of; None for any other file."""
    found = _SHARD.fullmatch(file)
    return found and found[1] + SUFFIX


def check_shards(folder: Path, names: Iterable[str], listed: Collection[str]) -> None:
    """Raise StorageError where shards in `folder`, of those that are `listed`, are not what their indexes tell.

    A shard that lies there and is not listed is named as well: another tool might read it.
    """
    for name in names:
        shards = [file for file in parts_of(name, listed) if file != name]
        if shards or index_name(name) in listed:
            _check(folder, name, shards, listed)
        for path in folder.glob(shard_name(name, 0, 0).replace("00000", "*")):
            if _whole_of(path.name) == name and path.name not in listed:
                raise StorageError(f"{path} is not one of the checkpoint's files, but is named as a part of {name}.")


def _check(folder: Path, name: str, shards: Collection[str], listed: Collection[str]) -> None:
    index = folder / index_name(name)
    if index.name not in listed:
        raise StorageError(f"{index} is missing: {name} lies in {len(shards)} files.")
    if name in listed:
        raise StorageError(f"{folder} holds both {name} and {index.name}.")
    files = file_by_tensor(index)
    for file in filterfalse(shards.__contains__, files.values()):
        raise StorageError(f"{index} names {file!r}, which is not one of the checkpoint's files.")
    for file in shards:
        told = {tensor for tensor, place in files.items() if place == file}
        for tensor in sorted(told ^ set(_held(folder / file))):
            raise StorageError(f"{index} disagrees with {file} about where {tensor} lies.")


def file_by_tensor(index: Path) -> dict[str, str]:
    """By tensor: the file that an index names for it."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict):
        raise StorageError(f"{index} is damaged: it has no weight_map.")
    return {name: str(file) for name, file in files.items()}


def _held(path: Path) -> Iterator[str]:
    """The names of the tensors in a file."""
    with reading_of(path), safe_open(path, framework="pt") as file:
        yield from file.keys()
