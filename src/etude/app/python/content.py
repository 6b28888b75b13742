"""What is known of a script's data without training on it: its lengths, and a hash of a sample of what it holds.

A run notes it in its folder, so that a later start notices other data. Samples are read as training reads them, a few
of them, twice, under the same seeds: where the two readings differ, or the data keeps a generator of its own, only
lengths are compared. What is no sequence of samples (a stream, a function, a feed) is not read.
"""

import copy
import dataclasses
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
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
SPLITS = ("train", "val")
COUNTED = ("batches", "samples")
"""What data that is no dataset is counted in, and what a dataset is."""
ALL = "all"
WANTED: Mapping[Check, Sequence[str]] = {"sample": ["64"], "full": [ALL], "lengths": []}
"""How many samples stand for all, evenly spread."""
SEQUENCES = (list, tuple, Tensor, np.ndarray, Dataset)
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
Facts = dict[str, int | str]


def read_check(check: str) -> Check:
    """The word for how data is compared. Raises ConfigError for any other."""
    if check not in WANTED:
        raise ConfigError(f'check_data must be "sample", "full" or "lengths", but is {check!r}.')
    return check  # type: ignore[return-value]


def check_content(folder: Path, data: Mapping[str, object], check: Check) -> Facts:
    """Refuse data other than the run in `folder` began with, and note what is there; give that.

    Raises RefusedError, which names the split and how it differs.
    """
    before = noted(folder / DATA, folder)
    now: Facts = {}
    for split in filter(data.__contains__, SPLITS):
        facts = facts_of(data[split], [*WANTED[check], *_counts(before, split, check)])
        now |= {f"{split}.{name}": value for name, value in facts.items()}
    _refuse_other(before, now, folder)
    write_json(folder / DATA, {**before, **now})
    return now


def _refuse_other(before: Mapping[str, Any], now: Facts, folder: Path) -> None:
    other = next((name for name, value in now.items() if before.get(name, value) != value), None)
    if other is not None:
        told = _told(other, before[other], now[other])
        raise RefusedError(f"{told} in {folder}; restore it, or give another run_dir.")


def _told(name: str, old: object, new: object) -> str:
    """How a fact of data differs, up to where the run lies."""
    split, _, fact = name.partition(".")
    if fact in COUNTED:
        return f"The {split} data holds {new:,} {fact}, but held {old:,} at the start of the run"
    return f"The {split} data holds other samples than at the start of the run"


def _counts(before: Mapping[str, object], split: str, check: Check) -> list[str]:
    """How many samples the earlier hashes of a split are of, as their names say."""
    begin = f"{split}.content."
    earlier = [name.removeprefix(begin) for name in before if name.startswith(begin)]
    return earlier if WANTED[check] else []


def facts_of(data: object, counts: Sequence[str]) -> Facts:
    """What is known of data: `samples`, `batches`, and by `content.N` the hash of N samples (`all`: of every one)."""
    samples, facts = data, Facts()
    if isinstance(data, DataLoader):
        samples, facts = data.dataset, _counted("batches", data if _has_length(data) else None)
    held = None if isinstance(samples, IterableDataset) else samples
    facts |= _counted(COUNTED[isinstance(samples, Dataset)], held)
    hashes = {f"content.{count}": _content(held, count) for count in counts}
    return facts | {name: digest for name, digest in hashes.items() if digest is not None}


def _has_length(data: DataLoader[Any]) -> bool:
    """Whether a loader has as many batches in every epoch, which one of a user's own may not."""
    return type(data.batch_sampler) in {BatchSampler, type(None)}


def _counted(name: str, data: Any) -> Facts:
    """How long data says it is, under a name; nothing where it does not say."""
    try:
        return {name: len(data)}
    except Exception:  # noqa: BLE001 - a user's code, which training may never ask
        return {}


def _content(samples: Any, count: str) -> str | None:
    """The hash of samples; None for what is no sequence of samples, or does not give the same ones twice."""
    if not isinstance(samples, SEQUENCES) or _draws(samples):
        return None
    with undisturbed(0):
        first, second = _hash(samples, count), _hash(samples, count)
    return first if first == second else None


def _draws(samples: object) -> bool:
    """Whether data keeps a generator of its own, which reading a sample would move."""
    held = vars(samples).values() if hasattr(samples, "__dict__") else ()
    return any(isinstance(value, GENERATORS) for value in held)


def _hash(samples: Any, count: str) -> str | None:
    """The hash of so many samples; None where they cannot be read, which training will tell of."""
    seed_generators(0)
    digest = hashlib.sha256()
    try:
        held, size = copy.copy(samples), len(samples)  # what reading notes down is not noted in the user's own
        most = size if count == ALL else min(size, int(count))
        for number in range(most):
            for part in _parts(held[number * size // most]):
                digest.update(part)
    except Exception:  # noqa: BLE001 - a user's code
        return None
    return digest.hexdigest()


# -- what a sample holds, as bytes -------------------------------------------------------------------------------------


@singledispatch
def _parts(value: object) -> Iterator[bytes]:
    """The kind, the size and the bytes of a part of a sample; of what has no known content, its type alone."""
    yield type(value).__qualname__.encode()
    if dataclasses.is_dataclass(value):
        yield from _parts([getattr(value, field.name) for field in dataclasses.fields(value)])


@_parts.register(Mapping)
def _(value: Mapping[object, object]) -> Iterator[bytes]:
    yield b"table "
    yield from _parts([*value.items()])


@_parts.register(list)
@_parts.register(tuple)
def _(value: Sequence[object]) -> Iterator[bytes]:
    yield f"list {len(value)} ".encode()
    for part in value:
        yield from _parts(part)


@_parts.register
def _(value: Tensor) -> Iterator[bytes]:
    yield f"tensor {value.dtype} {tuple(value.shape)} ".encode()
    yield value.detach().to_dense().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@_parts.register
def _(value: np.ndarray) -> Iterator[bytes]:
    yield f"array {value.dtype.str} {value.shape} ".encode()
    yield from _parts(value.tolist()) if value.dtype.hasobject else [np.ascontiguousarray(value).tobytes()]


@_parts.register
def _(value: str) -> Iterator[bytes]:
    yield from _parts(value.encode("utf-8", "surrogatepass"))


@_parts.register
def _(value: bytes) -> Iterator[bytes]:
    yield f"bytes {len(value)} ".encode() + value


@_parts.register(int)
@_parts.register(float)
@_parts.register(complex)
@_parts.register(np.generic)
@_parts.register(type(None))
def _(value: object) -> Iterator[bytes]:
    yield f"{value!r} ".encode()
