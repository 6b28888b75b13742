"""What a run is: a hash of all that its result depends on, and of nothing else.

That are the keys of its composed config which may not change between two starts of one run (so no names, folders,
logging or length: each field says so itself), the kind of device, the content of its data, and its own code.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from etude.app.runs.changes import Change, changes_between
from etude.app.runs.folder import CODE, CONFIG, DATA, ENVIRONMENT, code_names, tokenizer_hashes
from etude.base.config.composing import dotted
from etude.base.config.meaning import Meaning, meaning_of
from etude.base.config.nest import leaves
from etude.base.config.reading import read
from etude.base.errors import ConfigError
from etude.base.files import json_or_empty, write_json
from etude.tasks.config import Config, any_config, class_of
from etude.tasks.table import TASK_TYPES
from etude.train.device import choose_device

DEVICE, AUTO, CUDA = "train.device", "auto", "cuda"
IDENTITY = "identity"
"""The key of `environment.json` under which a run's stands."""


@dataclass(frozen=True)
class Identity:
    """What a run is made of, as hashes."""

    config: str
    data: str
    code: str

    @property
    def whole(self) -> str:
        """All of it as one hash."""
        return sha256(f"{self.config} {self.data} {self.code}".encode()).hexdigest()


def identity_of(folder: Path) -> Identity | None:
    """The identity of the run in a folder, by its own files; None where its config cannot be read, or has no task."""
    try:
        config = read(folder / CONFIG).data
    except ConfigError:
        return None
    if "task" not in config:
        return None
    environment = json_or_empty(folder / ENVIRONMENT)
    data = {name: content for name, content in json_or_empty(folder / DATA).items() if name != "test"}
    hashes = json_or_empty(folder / CODE / "sha256.json")
    return Identity(
        config=_hashed({**semantic(config), DEVICE: _kind_of_device(config, environment)}),
        data=_hashed({"data": data, "tokenizers": tokenizer_hashes(folder)}),
        code=_hashed({name: hashes[file] for file, name in code_names(hashes).items()}),
    )


def _hashed(value: Mapping[str, Any]) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def semantic(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a composed config, dotted, that make another run of it: of its numbers all but how long it is."""
    return _meaning(class_of_keys(config), config, lambda meaning: not meaning.resumable)


def class_of_keys(config: Mapping[str, Any]) -> type[Config]:
    """What tells what the keys of a composed config mean: a task of the table by itself, so no other is imported."""
    match config:
        case {"task": {"type": str() as name}} if name in TASK_TYPES:
            return class_of(config)
    return any_config()


def numbers_of(root: type[BaseModel], config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a composed config of this root, dotted, that change numbers, the length of training among them."""
    return _meaning(root, config, lambda meaning: meaning.identity != "none")


def _meaning(root: type[BaseModel], config: Mapping[str, Any], holds: Callable[[Meaning], bool]) -> dict[str, Any]:
    """The keys of a config, dotted, of whose meaning something holds."""
    told = ((dotted(place), value) for place, value in leaves(config))
    return {key: value for key, value in told if holds(meaning_of(root, key))}


def _kind_of_device(config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """What a run computes on, whose number keeps the bits; `auto` is what its machine had."""
    train = config.get("train")
    name = str(train.get("device", AUTO)) if isinstance(train, Mapping) else AUTO
    hardware = environment.get("hardware")
    if name == AUTO and isinstance(hardware, Mapping):
        name = CUDA if hardware.get("gpus") else choose_device("cpu" if _has_cuda() else AUTO).type
    return name.partition(":")[0]


def _has_cuda() -> bool:
    return choose_device(AUTO).type == CUDA


def note_identity(folder: Path) -> None:
    """Write the identity of a run beside what it was made with."""
    found = identity_of(folder)
    if found is not None:
        told = {**asdict(found), "whole": found.whole}
        write_json(folder / ENVIRONMENT, {**json_or_empty(folder / ENVIRONMENT), IDENTITY: told})


def semantic_changes(before: Path, after: Path) -> list[Change]:
    """The keys at which the configs of two runs differ that make them different runs."""
    configs = [read(folder / CONFIG).data for folder in (before, after)]
    changes = changes_between(configs[0], configs[1], any_config())
    return [change for change in changes if not change.meaning.resumable]
