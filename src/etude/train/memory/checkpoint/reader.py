"""Reading a checkpoint: nothing is believed before its manifest is verified, nothing is unpickled."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
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
    SHARED,
    STATE,
    STATE_JSON,
)
from etude.train.memory.checkpoint.damaged import reading_of
from etude.train.memory.checkpoint.naming import step_of
from etude.train.memory.checkpoint.nest import join
from etude.train.memory.checkpoint.origin import check_origin
from etude.train.memory.checkpoint.shards import check_shards, parts_of

LARGEST_MANIFEST = 1 << 24
"""Bytes; one that is larger is no manifest, and is not read into memory."""
LARGEST_STATE = 1 << 30
"""Bytes of what a run remembers beside tensors; its manifest has told how many there are."""


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`, once every file it lists has the size and hash it says.

    Raises StorageError naming the first file that is missing, cut short or changed, and for one of another run.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise StorageError(f"{folder} is not a complete checkpoint: it has no {MANIFEST}.")
    manifest = _manifest(path)
    with reading_of(path):
        step = int(manifest["step"])
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    if step_of(folder) not in {None, step}:
        raise StorageError(f"{folder} does not match its name: its {MANIFEST} is of step {step:,}.")
    for name in (MODEL, STATE_JSON):
        if not parts_of(name, files):
            raise StorageError(f"{path} lists no {name}.")
    check_origin(folder, manifest)
    for name, (size, digest) in files.items():
        _verify_file(folder, name, size, digest)
    check_shards(folder, SHARED, files)
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    """A manifest that is small enough to be one, and not of a later version."""
    with reading_of(path):
        manifest = dict(json.loads(read_regular(path, LARGEST_MANIFEST, links=False)))
        written = int(manifest["format"])
    if written > FORMAT:
        raise StorageError(f"{path} was written by a newer Etude (format {written}).")
    return manifest


def _verify_file(folder: Path, name: str, size: int, digest: str) -> None:
    if Path(name).name != name or name == "..":
        raise StorageError(f"{folder / MANIFEST} names {name!r}, which lies outside the checkpoint.")
    file = folder / name
    with reading_of(file):
        _check_bytes(file, size, digest)


def _check_bytes(file: Path, size: int, digest: str) -> None:
    if file.is_symlink() or not file.is_file():
        raise StorageError(f"{file} is missing.")
    if (found := file.stat().st_size) != size:
        raise StorageError(f"{file} is cut short or changed: it has {found:,} bytes instead of {size:,}.")
    if sha256_of(file) != digest:
        raise StorageError(f"{file} is damaged: its sha256 differs from the manifest.")


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Every tensor of a safetensors file; with `mapped` none is in memory before it is used, nor has to stay there."""
    with reading_of(path), safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        # Else copies: what safetensors gives lies unaligned in a mapping of the file.
        return found if mapped else {name: tensor.clone() for name, tensor in found.items()}


def read_kind(folder: Path, name: str, files: Collection[str], *, mapped: bool = False) -> dict[str, Tensor]:
    """All tensors of one of the kinds in a checkpoint of these files, such as MODEL, under all their names.

    They lie in one file or in several; there are none where it has no such file.
    """
    tensors: dict[str, Tensor] = {}
    for part in parts_of(name, files):
        tensors |= read_tensors(folder / part, mapped=mapped)
    aliases = _read_json(folder / ALIASES) if ALIASES in files else {}
    with reading_of(folder / ALIASES):
        return tensors | {other: tensors[kept] for other, kept in aliases.get(name, {}).items()}


def _read_json(path: Path) -> Any:
    with reading_of(path):
        return json.loads(read_regular(path, LARGEST_STATE, links=False))


def _listed(folder: Path) -> Collection[str]:
    """The files of a checkpoint that is sound, or of a folder of weights, which has hashes where Etude made it."""
    if is_checkpoint(folder):
        listed: Collection[str] = verify(folder)["files"]
        return listed
    check_hashes(folder)
    return [name for name in (MODEL, AVERAGED, ALIASES) if (folder / name).is_file()]


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, which has a manifest, rather than one of weights alone."""
    return step_of(folder) is not None or any((folder / name).exists() for name in (MANIFEST, STATE_JSON))


def read_weights(folder: Path, *, averaged: bool = False) -> dict[str, Tensor]:
    """The weights in `folder` (a checkpoint, verified; or any folder with a `model.safetensors`).

    With `averaged`, the moving average where one was kept.
    """
    files = _listed(folder)
    name = AVERAGED if averaged and parts_of(AVERAGED, files) else MODEL
    if not parts_of(name, files):
        raise StorageError(f"{folder} holds no {MODEL}.")
    return read_kind(folder, name, files)


def read(
    folder: Path, *, mapped: bool = False
) -> tuple[dict[str, Any], Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    """State by name (optimizers among it), weights, and averaged weights, of a verified checkpoint.

    What the manifest does not list is not read. With `mapped` weights and optimizers' tensors stay in the files until
    they are used, and are to be copied by whoever keeps them.
    """
    files = verify(folder)["files"]
    tensors = read_kind(folder, OPTIMIZER, files, mapped=mapped) | read_kind(folder, STATE, files)
    plain = _read_json(folder / STATE_JSON)
    with reading_of(folder / STATE_JSON):
        state = {name: join(part, tensors) for name, part in plain.items()}
    averaged = read_kind(folder, AVERAGED, files, mapped=mapped) if parts_of(AVERAGED, files) else None
    return state, read_kind(folder, MODEL, files, mapped=mapped), averaged
