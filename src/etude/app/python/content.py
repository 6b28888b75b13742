"""What is known of a script's data without training on it: its lengths, and a hash of a sample of what it holds.

A run notes it in its folder, so that a later start notices other data. Samples are read as training reads them, a few
of them, twice, under the same seeds: where the two readings differ, or the data keeps a generator of its own, only
lengths are compared. What is no sequence of samples (a stream, a function, a feed) is not read.
"""

import copy
import dataclasses
import hashlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from etude.app.runs.folder import DATA, noted
from etude.base.errors import ConfigError, RefusedError
from etude.base.files import write_json
from etude.train.evaluate import undisturbed
from etude.train.memory.state import seed_generators

Check = Literal["sample", "full", "lengths"]
CHECKS = ("sample", "full", "lengths")
SAMPLES = 64
"""How many samples stand for all, evenly spread."""
ALL = "all"
Facts = dict[str, int | str]


def read_check(check: str) -> Check:
    """The word for how data is compared. Raises ConfigError for any other."""
    if check not in CHECKS:
        raise ConfigError(f'check_data must be "sample", "full" or "lengths", but is {check!r}.')
    return check  # type: ignore[return-value]


def check_content(folder: Path, data: Mapping[str, object], check: Check) -> Facts:
    """Refuse data other than the run in `folder` began with, and note what is there; give that.

    Raises RefusedError, which names the split and how it differs.
    """
    before = noted(folder / DATA, folder)
    now: Facts = {}
    for split in filter(data.__contains__, ("train", "val")):
        facts = facts_of(data[split], check, _counts(before, split))
        now |= {f"{split}.{name}": value for name, value in facts.items()}
    for name, value in now.items():
        if before.get(name, value) != value:
            raise RefusedError(f"{_told(name, before[name], value)} in {folder}; restore it, or give another run_dir.")
    if before != {**before, **now}:
        write_json(folder / DATA, {**before, **now})
    return now


def _told(name: str, old: object, new: object) -> str:
    """How a fact of data differs, up to where the run lies."""
    split, _, fact = name.partition(".")
    if fact in {"samples", "batches"}:
        return f"The {split} data holds {new:,} {fact}, but held {old:,} at the start of the run"
    return f"The {split} data holds other samples than at the start of the run"


def _counts(before: Mapping[str, object], split: str) -> list[str]:
    """How many samples the earlier hashes of a split are of, as their names say."""
    begin = f"{split}.content."
    return [name.removeprefix(begin) for name in before if name.startswith(begin)]


def facts_of(data: object, check: Check, counts: list[str]) -> Facts:
    """What is known of data: `samples`, `batches`, and by `content.N` the hash of N samples (`all`: of every one)."""
    samples = data.dataset if isinstance(data, DataLoader) else data
    facts: Facts = {}
    if isinstance(data, DataLoader) and _has_length(data):
        facts |= _counted("batches", _length(data))
    size = None if isinstance(samples, IterableDataset) else _length(samples)
    if size is None:
        return facts
    facts |= _counted("samples" if isinstance(samples, Dataset) else "batches", size)
    wanted = {"sample": [str(SAMPLES)], "full": [ALL], "lengths": []}[check]
    for count in dict.fromkeys([*wanted, *(counts if check != "lengths" else ())]):
        digest = _content(samples, size, count)
        if digest is not None:
            facts[f"content.{count}"] = digest
    return facts


def _has_length(data: DataLoader[Any]) -> bool:
    """Whether a loader has as many batches in every epoch, which one of a user's own may not."""
    return type(data.batch_sampler) in {BatchSampler, type(None)}


def _counted(name: str, count: int | None) -> Facts:
    return {} if count is None else {name: count}


def _length(data: Any) -> int | None:
    """How long data says it is; None where it does not say."""
    try:
        return len(data)
    except Exception:  # noqa: BLE001 - a user's code, which training may never ask
        return None


def _content(samples: Any, size: int, count: str) -> str | None:
    """The hash of samples; None for what is no sequence of samples, or does not give the same ones twice."""
    if not _is_sequence(samples) or _draws(samples):
        return None
    most = size if count == ALL else min(size, int(count))
    places = [place * size // most for place in range(most)]
    with undisturbed(0):
        first, second = _hash(samples, places), _hash(samples, places)
    return first if first == second else None


def _is_sequence(samples: object) -> bool:
    match samples:
        case list() | tuple() | Tensor() | np.ndarray():
            return True
        case Dataset():
            return hasattr(samples, "__getitem__")
    return False


def _draws(samples: object) -> bool:
    """Whether data keeps a generator of its own, which reading a sample would move."""
    kinds = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
    held = vars(samples).values() if hasattr(samples, "__dict__") else ()
    return any(isinstance(value, kinds) for value in held)


def _hash(samples: Any, places: list[int]) -> str | None:
    seed_generators(0)
    digest = hashlib.sha256()
    try:
        held = copy.copy(samples)  # what reading notes down is not noted in the user's own
        for place in places:
            for part in _parts(held[place]):
                digest.update(part)
    except Exception:  # noqa: BLE001 - a user's code: what is wrong with it is told where training reads it
        return None
    return digest.hexdigest()


def _parts(value: object) -> Iterator[bytes]:
    """What a sample holds, as bytes; of what has no known content, its type alone."""
    match value:
        case Mapping():
            yield f"table {len(value)} ".encode()
            yield from _parts([*value.items()])
        case list() | tuple():
            yield f"list {len(value)} ".encode()
            for part in value:
                yield from _parts(part)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _parts([getattr(value, field.name) for field in dataclasses.fields(value)])
        case _:
            yield from _plain(value)


def _plain(value: object) -> Iterator[bytes]:
    """What is no nest: its kind, its size, and its bytes."""
    match value:
        case Tensor():
            yield f"tensor {value.dtype} {tuple(value.shape)} ".encode()
            yield value.detach().to_dense().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        case np.ndarray() if not value.dtype.hasobject:
            yield f"array {value.dtype.str} {value.shape} ".encode()
            yield np.ascontiguousarray(value).tobytes()
        case str():
            yield f"text {len(value)} ".encode() + value.encode("utf-8", "surrogatepass")
        case bytes():
            yield f"bytes {len(value)} ".encode() + value
        case None | bool() | int() | float() | complex() | np.generic():
            yield f"{value!r} ".encode()
        case _:
            yield type(value).__qualname__.encode()
