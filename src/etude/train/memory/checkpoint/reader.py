"""Reading a checkpoint: nothing is believed before its manifest is verified, nothing is unpickled."""

import json
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.base.errors import StorageError
from etude.base.files import sha256_of
from etude.base.hashes import check_hashes
from etude.base.regular import read_regular
from etude.train.memory.checkpoint.content import (
    ALIASES,
    AVERAGED,
    FORMAT,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    STATE_JSON,
)
from etude.train.memory.checkpoint.naming import step_of
from etude.train.memory.checkpoint.nest import join
from etude.train.memory.checkpoint.origin import check_origin

LARGEST_MANIFEST = 1 << 24
"""Bytes; one that is larger is no manifest, and is not read into memory."""
LARGEST_STATE = 1 << 30
"""Bytes of what a run remembers beside tensors; its manifest has told how many there are."""

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""What reading a file of any content may raise."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file it was that could not be read."""
    try:
        yield
    except _MALFORMED as error:
        said = " ".join(str(error).split())[:200]
        raise StorageError(f"{path} is damaged ({type(error).__name__}: {said}).") from error


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`, once every file it lists has the size and hash it says.

    Raises StorageError naming the first file that is missing, cut short or changed, and for one of another run.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise StorageError(f"{folder} is not a complete checkpoint: it has no {MANIFEST}.")
    manifest = _manifest(path)
    with _reading(path):
        step = int(manifest["step"])
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    if step_of(folder) not in {None, step}:
        raise StorageError(f"{folder} does not match its name: its {MANIFEST} is of step {step:,}.")
    for name in (MODEL, STATE_JSON):
        if name not in files:
            raise StorageError(f"{path} lists no {name}.")
    check_origin(folder, manifest)
    for name, (size, digest) in files.items():
        _verify_file(folder, name, size, digest)
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    """A manifest that is small enough to be one, and not of a later version."""
    with _reading(path):
        manifest = dict(json.loads(read_regular(path, LARGEST_MANIFEST, links=False)))
        written = int(manifest["format"])
    if written > FORMAT:
        raise StorageError(f"{path} was written by a newer Etude (format {written}).")
    return manifest


def _verify_file(folder: Path, name: str, size: int, digest: str) -> None:
    if Path(name).name != name or name == "..":
        raise StorageError(f"{folder / MANIFEST} names {name!r}, which lies outside the checkpoint.")
    file = folder / name
    with _reading(file):
        _check_bytes(file, size, digest)


def _check_bytes(file: Path, size: int, digest: str) -> None:
    if file.is_symlink() or not file.is_file():
        raise StorageError(f"{file} is missing.")
    if (found := file.stat().st_size) != size:
        raise StorageError(f"{file} is cut short or changed: it has {found:,} bytes instead of {size:,}.")
    if sha256_of(file) != digest:
        raise StorageError(f"{file} is damaged: its sha256 differs from the manifest.")


def read_tensors(path: Path, aliases: Mapping[str, Mapping[str, str]]) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, the other names of shared ones included (`aliases`, by file name)."""
    with _reading(path):
        with safe_open(path, framework="pt") as file:
            # Copies: what safetensors gives lies unaligned in a mapping of the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
        for name, kept in aliases.get(path.name, {}).items():
            tensors[name] = tensors[kept]
    return tensors


def _read_json(path: Path) -> Any:
    with _reading(path):
        return json.loads(read_regular(path, LARGEST_STATE, links=False))


def _listed(folder: Path) -> Container[str]:
    """The files of a checkpoint that is sound, or of a folder of weights, which has hashes where Etude made it."""
    if _is_checkpoint(folder):
        listed: Container[str] = verify(folder)["files"]
        return listed
    check_hashes(folder)
    return _present(folder)


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, which has a manifest, rather than one of weights alone."""
    return step_of(folder) is not None or any((folder / name).exists() for name in (MANIFEST, STATE_JSON))


def _present(folder: Path) -> list[str]:
    return [name for name in (MODEL, AVERAGED, ALIASES) if (folder / name).is_file()]


def read_weights(folder: Path, *, averaged: bool = False) -> dict[str, Tensor]:
    """The weights in `folder` (a checkpoint, verified; or any folder with a `model.safetensors`).

    With `averaged`, the moving average where one was kept.
    """
    files = _listed(folder)
    name = AVERAGED if averaged and AVERAGED in files else MODEL
    if name not in files:
        raise StorageError(f"{folder} holds no {MODEL}.")
    return read_tensors(folder / name, _aliases(folder, files))


def _aliases(folder: Path, files: Container[str]) -> Mapping[str, Mapping[str, str]]:
    """By file name: the other names of shared tensors."""
    aliases: Mapping[str, Mapping[str, str]] = _read_json(folder / ALIASES) if ALIASES in files else {}
    return aliases


def read(folder: Path) -> tuple[dict[str, Any], Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    """State by name (optimizers among it), weights, and averaged weights, of a verified checkpoint.

    What the manifest does not list is not read.
    """
    files = verify(folder)["files"]
    aliases = _aliases(folder, files)
    tensors: dict[str, Tensor] = {}
    for name in filter(files.__contains__, (OPTIMIZER, STATE)):
        tensors.update(read_tensors(folder / name, aliases))
    plain = _read_json(folder / STATE_JSON)
    with _reading(folder / STATE_JSON):
        state = {name: join(part, tensors) for name, part in plain.items()}
    averaged = read_tensors(folder / AVERAGED, aliases) if AVERAGED in files else None
    return state, read_tensors(folder / MODEL, aliases), averaged
