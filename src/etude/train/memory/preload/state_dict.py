"""A state dict in a file that `torch.save` wrote, by whatever tool: read as tensors and plain data, or not at all."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from etude.base.errors import StorageError

NESTED = ("state_dict", "model_state_dict", "model", "module", "net")
"""Under what keys the checkpoints of other tools hold the weights: Lightning's, RETURNN's and fairseq's, and others."""
COMPILED = ("_orig_mod.", "torch.compile")
PREFIXES = (COMPILED, ("module.", "DistributedDataParallel"), COMPILED)
"""What is put before the names of all parameters, and by whom; one may have wrapped the other, either way."""
_FOREIGN = re.compile(r"(?:GLOBAL|global:?|Unsupported class) ([\w.]+)")


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by name, and clauses that say how it was read.

    No code of the file runs: torch reads it with `weights_only`. Raises StorageError where it holds anything else than
    tensors and plain data, or cannot be read.
    """
    notes: list[str] = []
    tensors = _tensors(_loaded(path), notes)
    if not tensors:
        raise StorageError(f"{path} is no state dict: it holds no tensors by name.")
    return tensors, notes


def _loaded(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StorageError(f"{path} cannot be read: {_why(str(error))}") from error
    except Exception as error:  # what reading a file of any content raises
        said = " ".join(str(error).split())[:200]
        raise StorageError(f"{path} is no state dict of torch, or damaged ({type(error).__name__}: {said}).") from error


def _why(said: str) -> str:
    """Why torch refuses a pickle, as a sentence."""
    foreign = _FOREIGN.search(said)
    if foreign is None:
        return "it is damaged, or no state dict that torch.save wrote."
    return f"it holds {foreign[1]} beside tensors, which is code that Etude never runs; save module.state_dict() alone."


def _tensors(loaded: object, notes: list[str]) -> dict[str, Tensor]:
    match loaded:
        case Mapping():
            return _unprefixed(_by_name(_weights(loaded, notes)), notes)
    return {}


def _weights(loaded: Mapping[object, object], notes: list[str]) -> Mapping[object, object]:
    """The table of weights, which may lie under a key of its own."""
    for key in NESTED:
        match loaded.get(key):
            case Mapping() as inner if any(isinstance(part, Tensor) for part in inner.values()):
                notes.append(f'of its "{key}"')
                return inner
    return loaded


def _by_name(weights: Mapping[object, object]) -> dict[str, Tensor]:
    return {str(name): value.detach() for name, value in weights.items() if isinstance(value, Tensor)}


def _unprefixed(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The tensors without what a wrapper of the whole module has put before their names."""
    for prefix, wrapper in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            notes.append(f'without the "{prefix}" of {wrapper} before their names')
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
