"""What one checkpoint holds, and its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from etude.base.files import fsync_file, fsync_folder, sha256_of, storage, write_json
from etude.train.checkpoint.nest import snapshot, split

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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whose bytes are a function of the tensors.

    The metadata holds one entry, since safetensors writes several in an order that changes from one process to the
    next; without `format`, some readers refuse the file.
    """
    save_file(dict(tensors), path, metadata={"format": "pt"})


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
        optimizers: Any,
        state: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> "Content":
        """Copy a run's state; this is the part of a save that training waits for."""
        nested: dict[str, Tensor] = {}
        optimizer_tensors: dict[str, Tensor] = {}
        plain = {name: split(part, name, nested) for name, part in state.items()}
        plain["optimizers"] = split(optimizers, "optimizers", optimizer_tensors)
        files: dict[str, Mapping[str, Tensor]] = {MODEL: model, OPTIMIZER: optimizer_tensors, STATE: nested}
        if averaged is not None:
            files[AVERAGED] = averaged
        copied = {name: snapshot(tensors) for name, tensors in files.items() if tensors or name == MODEL}
        return cls(
            step=step,
            tensors={name: tensors for name, (tensors, _) in copied.items()},
            aliases={name: aliases for name, (_, aliases) in copied.items() if aliases},
            state=plain,
            extra=dict(extra or {}),
            about=dict(about or {}),
        )

    def write(self, folder: Path) -> None:
        """Write every file into the existing, empty `folder`, each durable, the manifest last."""
        with storage("write the checkpoint", folder):
            for name, tensors in self.tensors.items():
                write_tensors(folder / name, tensors)
                fsync_file(folder / name)
            if self.aliases:
                write_json(folder / ALIASES, self.aliases)
            (folder / STATE_JSON).write_text(json.dumps(self.state, allow_nan=False), encoding="utf-8")
            fsync_file(folder / STATE_JSON)
            for name, value in self.extra.items():
                write_json(folder / name, value)
            files = {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                for path in sorted(folder.iterdir())
            }
            write_json(folder / MANIFEST, {"format": FORMAT, "step": self.step, **self.about, "files": files})
            fsync_folder(folder)
