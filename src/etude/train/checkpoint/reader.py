"""Reading a checkpoint: nothing is believed before its manifest is verified, nothing is unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.base.errors import StorageError
from etude.base.files import sha256_of
from etude.train.checkpoint.content import ALIASES, AVERAGED, FORMAT, MANIFEST, MODEL, OPTIMIZER, STATE, STATE_JSON
from etude.train.checkpoint.nest import join


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`, once every file it lists has the size and hash it says.

    Raises StorageError naming the first file that is missing, cut short or changed.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        known = int(manifest["format"]) <= FORMAT
    except FileNotFoundError:
        raise StorageError(f"{folder} is no complete checkpoint: it has no {MANIFEST}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} is damaged ({type(error).__name__}).") from error
    if not known:
        raise StorageError(f"{path} was written by a newer Etude (format {manifest['format']}).")
    for name, (size, digest) in files.items():
        _verify_file(folder, name, size, digest)
    return manifest


def _verify_file(folder: Path, name: str, size: int, digest: str) -> None:
    file = folder / name
    if Path(name).name != name:
        raise StorageError(f"{folder / MANIFEST} names {name!r}, which lies outside the checkpoint.")
    if not file.is_file():
        raise StorageError(f"{file} is missing.")
    if (found := file.stat().st_size) != size:
        raise StorageError(f"{file} is cut short or changed: it has {found:,} bytes instead of {size:,}.")
    if sha256_of(file) != digest:
        raise StorageError(f"{file} is damaged: its bytes are not those that were written (sha256 differs).")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, the other names of shared ones included."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        beside = path.with_name(ALIASES)
        aliases = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        for name, kept in aliases.get(path.name, {}).items():
            tensors[name] = tensors[kept]
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error
    return tensors


def read_weights(folder: Path, *, averaged: bool = False) -> dict[str, Tensor]:
    """The weights in `folder` (a checkpoint, verified; or any folder with a `model.safetensors`).

    With `averaged`, the moving average where one was kept.
    """
    if (folder / MANIFEST).exists():
        verify(folder)
    path = folder / (AVERAGED if averaged and (folder / AVERAGED).exists() else MODEL)
    if not path.exists():
        raise StorageError(f"{folder} holds no {MODEL}.")
    return read_tensors(path)


def read(folder: Path) -> tuple[dict[str, Any], Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    """State by name (optimizers among it), weights, and averaged weights, of a verified checkpoint."""
    verify(folder)
    tensors: dict[str, Tensor] = {}
    for name in (OPTIMIZER, STATE):
        if (folder / name).exists():
            tensors.update(read_tensors(folder / name))
    try:
        state = {
            name: join(part, tensors)
            for name, part in json.loads((folder / STATE_JSON).read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"{folder / STATE_JSON} is damaged ({type(error).__name__}).") from error
    averaged = read_tensors(folder / AVERAGED) if (folder / AVERAGED).exists() else None
    return state, read_tensors(folder / MODEL), averaged
