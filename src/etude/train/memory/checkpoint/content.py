"""What one checkpoint holds, and its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from etude.base.files import fsync_folder, json_bytes, write_parts
from etude.train.memory.checkpoint.nest import snapshot, split
from etude.train.memory.checkpoint.tensors import encode

MANIFEST = "manifest.json"
MODEL, AVERAGED, OPTIMIZER, STATE = (
    "model.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "state.safetensors",
)
STATE_JSON = "state.json"
ALIASES = "aliases.json"
"""By file name: the other names of tensors that are shared."""
FORMAT = 1
SMALL_FILES = 1 << 16
"""Bytes allowed for the JSON files of a checkpoint where its need of space is told."""


@dataclass(frozen=True)
class Content:
    """A run at one step, copied so that training may go on while it is written."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """Tensors by file name."""
    aliases: Mapping[str, Mapping[str, str]]
    """By file name: names that share another's tensor."""
    state: Mapping[str, Any]
    """All that is no tensor, as JSON."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON files by name (`task.json`)."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest says besides sizes and hashes: config hash, versions, metrics."""

    @classmethod
    def capture(
        cls,
        step: int,
        *,
        model: Mapping[str, Tensor],
        averaged: Mapping[str, Tensor] | None,
        optimizers: object,
        state: Mapping[str, object],
        extra: Mapping[str, object] | None = None,
        about: Mapping[str, object] | None = None,
    ) -> "Content":
        """Copy a run's state; this is the part of a save that training waits for."""
        nested: dict[str, Tensor] = {}
        optimizer_tensors: dict[str, Tensor] = {}
        plain = {name: split(part, name, nested) for name, part in state.items()}
        plain["optimizers"] = split(optimizers, "optimizers", optimizer_tensors)
        files = {MODEL: model, OPTIMIZER: optimizer_tensors, STATE: nested, AVERAGED: averaged}
        tensors, aliases = _snapshots({name: held or {} for name, held in files.items()})
        return cls(step, tensors, aliases, state=plain, extra=dict(extra or {}), about=dict(about or {}))

    @property
    def bytes(self) -> int:
        """About how much it takes on disk."""
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values()) + SMALL_FILES

    def write(self, folder: Path) -> None:
        """Write every file into the existing, empty `folder`, each durable, the manifest last. Raises OSError."""
        documents = {STATE_JSON: self.state, **self.extra}
        if self.aliases:
            documents[ALIASES] = self.aliases
        files = {name: write_parts(folder / name, encode(tensors)) for name, tensors in self.tensors.items()}
        files |= {name: write_parts(folder / name, [json_bytes(value)]) for name, value in documents.items()}
        listed = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(files.items())}
        manifest = {"format": FORMAT, "step": self.step, **self.about, "files": listed}
        write_parts(folder / MANIFEST, [json_bytes(manifest)])
        fsync_folder(folder)


def _snapshots(
    files: Mapping[str, Mapping[str, Tensor]],
) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Mapping[str, str]]]:
    """By file name: copies of its tensors, and the other names of shared ones; of empty files the model's alone."""
    tensors: dict[str, Mapping[str, Tensor]] = {}
    aliases: dict[str, Mapping[str, str]] = {}
    for name, held in files.items():
        if held or name == MODEL:
            tensors[name], aliases[name] = snapshot(held)
    return tensors, {name: shared for name, shared in aliases.items() if shared}
