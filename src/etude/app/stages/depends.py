"""What the artifact of a stage depends on, as hashes: its config, code, the content that it reads, and other stages."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from etude.app.build import imported_files
from etude.app.runs.changes import changes_between
from etude.app.stages.node import Node
from etude.app.stages.stage import Artifacts
from etude.base.config.composing import dotted
from etude.base.config.meaning import meaning_of
from etude.base.config.path_places import paths_of
from etude.base.config.reading import read
from etude.base.files import sha256_of
from etude.base.hashes import content_of
from etude.data.files.named import files_named
from etude.tasks.config import LoadedConfig
from etude.tasks.own import task_type
from etude.tasks.run_files import CONFIG
from etude.train.memory.checkpoint.content import MODEL
from etude.train.memory.checkpoint.shards import files_of
from etude.train.memory.preload.place import place_of

HASHED = 16 << 30
"""Bytes of the files of a split of which the content is hashed; of more, names and sizes are."""
MEMORY = "contents"
"""The folder of a cache in which it is noted what files had been hashed to."""
ELSEWHERE = ("run", "data", "log")
"""Sections with paths that are told in another way, or of which nothing depends."""
FIRST_WEIGHTS = "init"


def made_of(node: Node, inputs: Artifacts) -> dict[str, Any]:
    """Hashes of all that a stage's artifact depends on: config, code, content that it reads, and other stages.

    Raises DataError or ConfigError where content is not there, or cannot be listed.
    """
    taken = {name: inputs[name].identity for name in node.stage.inputs()}
    config = node.stage.identity({})
    return {"config": config, "code": _code(node), "contents": dict(_contents(node)), "inputs": taken}


def hash_of(value: object) -> str:
    """The hash of a value that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def changed(node: Node, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between what a stage was made of and what it is made of now, as a clause; empty for nothing."""
    if before.get("config") != now["config"]:
        return f"its config has changed{_changed_keys(node)}"
    for part, told in (("code", "its code"), ("contents", "the content of"), ("inputs", "its input")):
        was, is_now = before.get(part, {}), now.get(part, {})
        differing = [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
        if differing:
            return f"{told} {differing[0]} has changed"
    return ""


def _changed_keys(node: Node) -> str:
    """Which key of a training has changed, as the end of a clause, where its folder tells."""
    composed = node.made.composed
    path = node.folder / CONFIG
    if composed is None or not path.is_file():
        return ""
    before, root = read(path).data, type(composed.loaded.config)
    changes = changes_between(before, composed.loaded.data, root)
    found = [change for change in changes if change.meaning.identity != "none"]
    return f" ({found[0]}{', and more' if len(found) > 1 else ''})" if found else ""


def _code(node: Node) -> dict[str, str]:
    named = [] if node.loaded is None else imported_files(node.loaded.config)
    return {file.name: sha256_of(file) for file in (*named, *node.made.code)}


# -- content -------------------------------------------------------------------------------------------------------


def _contents(node: Node) -> Iterator[tuple[str, str]]:
    """By key of the config: a hash of what lies there, of the splits that the stage reads, and outside of them."""
    loaded = node.loaded
    if loaded is None:
        return
    memory = loaded.config.cache / MEMORY
    for split in node.made.splits:
        files = _of_split(loaded, split)
        if files:
            deep = sum(file.stat().st_size for file in files if file.is_file()) <= HASHED
            yield f"data.{split}", content_of(files, memory, deep=deep)
    for key, path in _others(node, loaded):
        yield key, content_of(files_named(path, key), memory, deep=True)


def _of_split(loaded: LoadedConfig, split: str) -> list[Path]:
    """The files of a split, in all epochs."""
    configs = [loaded.config, *(later.config for later in loaded.later)]
    listed = chain.from_iterable(task_type(config).files(config, split) for config in configs)
    return list(dict.fromkeys(listed))


def _others(node: Node, loaded: LoadedConfig) -> Iterator[tuple[str, Path]]:
    """What else a config names that there is, and that no stage of this pipeline leaves: the key, and the path."""
    root = type(loaded.config)
    for place, text in paths_of(root, loaded.data):
        key, path = dotted(place), Path(text)
        if place[0] in ELSEWHERE or meaning_of(root, key).identity == "none" or path.is_relative_to(node.folder.parent):
            continue
        if place[0] == FIRST_WEIGHTS:
            yield from ((key, file) for file in _weights(place_of(path, key).path))
        elif path.exists():
            yield key, path


def _weights(place: Path) -> Iterator[Path]:
    """The files of first weights, which may be some of a folder that holds more."""
    yield from [place] if place.is_file() else files_of(MODEL, place)
