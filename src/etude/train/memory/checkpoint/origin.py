"""Whose a checkpoint is: a run writes down the configs that it has been trained with, and every manifest names one."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from etude.base.errors import StorageError
from etude.base.files import json_or_empty, write_json
from etude.train.memory.checkpoint.content import MANIFEST
from etude.train.memory.checkpoint.naming import FOLDER, PREFIX

ENVIRONMENT, CONFIGS = "environment.json", "configs"
"""The file of a run folder, and the key in it, that list the hashes of the run's configs."""


def config_hash(config: Mapping[str, object]) -> str:
    """The hash by which a manifest names a config.

    >>> config_hash({"a": (1, 2)}) == config_hash({"a": [1, 2]})
    True
    """
    return sha256(json.dumps(_plain(config), sort_keys=True, default=str).encode()).hexdigest()


def _plain(nest: object) -> object:
    match nest:
        case Mapping():
            return {str(key): _plain(part) for key, part in nest.items()}
        case list() | tuple():
            return list(map(_plain, nest))
    return nest


def known_configs(run: Path) -> list[str] | None:
    """The hashes of the configs that the run in a folder has had; None of one that has not written them down."""
    match json_or_empty(run / ENVIRONMENT).get(CONFIGS):
        case list() as hashes:
            return list(map(str, hashes))
    return None


def configs_of(run: Path) -> list[str]:
    """The hashes that a run has written down; of one of before, those that its checkpoints name."""
    known = known_configs(run)
    return list(dict.fromkeys(_named_by_checkpoints(run))) if known is None else known


def take_in(run: Path, hashes: Sequence[str]) -> None:
    """Write down that checkpoints of these configs are the run's too, where it writes configs down."""
    known = known_configs(run)
    if known is not None and not set(known).issuperset(hashes):
        now = list(dict.fromkeys([*known, *hashes]))
        write_json(run / ENVIRONMENT, {**json_or_empty(run / ENVIRONMENT), CONFIGS: now})


def check_origin(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lies in a run folder and whose manifest names a config that the run never had.

    Raises StorageError. A run of before, which has not written its configs down, is believed.
    """
    if folder.parent.name != FOLDER:
        return
    known = known_configs(folder.parent.parent)
    if known is not None and str(manifest.get("config")) not in known:
        raise StorageError(
            f"{folder} is a checkpoint of another run: the config that its {MANIFEST} names is none of those that "
            f"{ENVIRONMENT} lists for this run."
        )


def _named_by_checkpoints(run: Path) -> Sequence[str]:
    manifests = map(json_or_empty, sorted((run / FOLDER).glob(f"{PREFIX}*/{MANIFEST}")))
    return [str(manifest["config"]) for manifest in manifests if "config" in manifest]
