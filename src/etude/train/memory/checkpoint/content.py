"""What one checkpoint holds, and its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from etude.base.files import fsync_folder, json_bytes, write_parts
from etude.train.memory.checkpoint.nest import first_names, split
from etude.train.memory.checkpoint.parts import ALONE, Parts, Writer
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
SHARED = (MODEL, AVERAGED, OPTIMIZER)
"""What may lie in several files, shared out among the ranks of a run."""
FORMAT = 1
SMALL_FILES = 1 << 16
"""Bytes allowed for the JSON files of a checkpoint where its need of space is told."""
Listed = Mapping[str, Mapping[str, Any]]
"""Files by name, as a manifest lists them: `bytes` and `sha256`."""


@dataclass(frozen=True)
class Content:
    """A run at one step, copied so that training may go on while it is written.

    Of several ranks each has its own part, and the first one what is not shared out.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """Tensors by file name."""
    aliases: Mapping[str, Mapping[str, str]]
    """By file name, of a file in several parts by what it would be called in one: names that share another's tensor."""
    state: Mapping[str, Any]
    """All that is no tensor, as JSON."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON files by name (`task.json`, and the indexes of files in several parts)."""
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
        among: Writer = ALONE,
    ) -> "Content":
        """Copy a run's state, or this writer's part of it; this is the part of a save that training waits for."""
        nested: dict[str, Tensor] = {}
        optimizer_tensors: dict[str, Tensor] = {}
        plain = {name: split(part, name, nested) for name, part in state.items()}
        plain["optimizers"] = split(optimizers, "optimizers", optimizer_tensors)
        kinds = {MODEL: model, OPTIMIZER: optimizer_tensors, STATE: nested, AVERAGED: averaged or {}}
        firsts = {name: first_names(held) for name, held in kinds.items() if held or name == MODEL}
        parts = Parts(among, {name: held for name, (held, _) in firsts.items()})
        aliases = {name: shared for name, (_, shared) in firsts.items() if shared}
        more = {**(extra or {}), **parts.indexes()}
        return cls(step, parts.own(), aliases, state=plain, extra=more, about=dict(about or {}))

    @property
    def bytes(self) -> int:
        """About how much it takes on disk."""
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values()) + SMALL_FILES

    def write_tensors(self, folder: Path) -> Listed:
        """Write the files of tensors into `folder`, each durable; how a manifest lists them. Raises OSError."""
        return _listed({name: write_parts(folder / name, encode(held)) for name, held in self.tensors.items()})

    def complete(self, folder: Path, tensors: Listed) -> None:
        """Write all other files beside those of tensors, each durable, the manifest last. Raises OSError."""
        documents = {STATE_JSON: self.state, **self.extra}
        if self.aliases:
            documents[ALIASES] = self.aliases
        files = {name: write_parts(folder / name, [json_bytes(value)]) for name, value in documents.items()}
        listed = dict(sorted({**tensors, **_listed(files)}.items()))
        manifest = {"format": FORMAT, "step": self.step, **self.about, "files": listed}
        write_parts(folder / MANIFEST, [json_bytes(manifest)])
        fsync_folder(folder)


def _listed(files: Mapping[str, tuple[int, str]]) -> dict[str, Mapping[str, Any]]:
    return {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
