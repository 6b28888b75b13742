"""What a stage's folder says of it: what was begun in it, and how it ended, believed only with the right hashes."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from etude.app.build import imported_files
from etude.app.runs.changes import changes_between
from etude.app.runs.pipelines import BEGUN, DONE
from etude.app.stages.names import ALIGN
from etude.app.stages.node import Node
from etude.app.stages.stage import Artifact, Artifacts
from etude.app.stages.tables import TRAIN
from etude.base.config.reading import read
from etude.base.errors import StorageError
from etude.base.files import sha256_of, storage
from etude.base.hashes import Facts, first_damaged, known_sha256, sealed_or_empty, write_sealed
from etude.tasks.run_files import CONFIG
from etude.tasks.task_type import TOKENIZERS
from etude.train.lock import is_locked
from etude.train.memory.checkpoint.content import AVERAGED, MANIFEST, MODEL
from etude.train.memory.checkpoint.naming import FOLDER
from etude.train.memory.checkpoint.store import BEST, LAST, Store
from etude.train.memory.preload.place import place_of

CHECKED, HASHES = ".checked", ".hashes"
FORMAT = 1
FINISHED, RUNNING, INTERRUPTED, MISSING = "done", "running", "interrupted", "missing"
STALE, DAMAGED = "changed", "damaged"
OWN = (DONE, BEGUN, CHECKED, ".lock")
"""Files of a stage's folder that are no part of what it leaves."""


@dataclass(frozen=True)
class Standing:
    """How a stage stands."""

    state: str
    """One of `done`, `changed` (its config, code or inputs are others now), `damaged`, `interrupted`, `missing`."""
    why: str = ""
    """What has changed or is damaged, as a clause."""
    artifact: Artifact | None = None
    """What it has left, where that is whole."""
    record: Mapping[str, Any] | None = None
    """What its `done.json` holds."""


# -- what a stage depends on ---------------------------------------------------------------------------------------


def made_of(node: Node, inputs: Artifacts) -> dict[str, Any]:
    """Hashes of all that a stage's artifact depends on: config, code, files of data, first weights, other stages."""
    taken = {name: inputs[name].identity for name in node.stage.inputs()}
    parts: dict[str, Any] = {"config": node.stage.identity({}), "code": _code(node), "files": _files(node)}
    weights = {key: known_sha256(path, _memory(node)) for key, path in _first_weights(node)}
    return {**parts, **({"weights": weights} if weights else {}), "inputs": taken}


def hash_of(value: object) -> str:
    """The hash of a value that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _code(node: Node) -> dict[str, str]:
    named = [] if node.loaded is None else imported_files(node.loaded.config)
    return {file.name: sha256_of(file) for file in (*named, *node.made.code)}


def _files(node: Node) -> dict[str, str]:
    """Hashes of the files of data that a config names; of folders, and what files list in turn, it knows nothing."""
    if node.loaded is None:
        return {}
    data = node.loaded.config.data
    found = {split: data.split_of(split) for split in ("train", "val", "test")}
    paths = {split: path for split, path in found.items() if isinstance(path, Path) and path.is_file()}
    return {split: known_sha256(path, _memory(node)) for split, path in paths.items()}


def _first_weights(node: Node) -> Iterator[tuple[str, Path]]:
    """The files, from outside of the pipeline, that a training takes its first weights from."""
    sources = () if node.loaded is None else node.loaded.config.init.from_
    for number, source in enumerate(sources):
        key = f"init.from[{number}]"
        if not source.checkpoint.is_relative_to(node.folder.parent):
            place = place_of(source.checkpoint, key).path
            yield from ((key, file) for file in (place, place / MODEL) if file.is_file())


def _memory(node: Node) -> Path:
    """Where it is noted which hash a file had when it was last read."""
    return node.folder.with_name(HASHES)


def changed(node: Node, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between what a stage was made of and what it is made of now, as a clause; empty for nothing."""
    if before.get("config") != now["config"]:
        return f"its config has changed{_changed_keys(node)}"
    for part, told in (("code", "code"), ("files", "data file"), ("weights", "source"), ("inputs", "input")):
        was, is_now = before.get(part, {}), now.get(part, {})
        differing = [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
        if differing:
            return f"its {told} {differing[0]} has changed"
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


# -- what a stage has left -----------------------------------------------------------------------------------------


def _roles(node: Node, path: Path) -> dict[str, Path]:
    """The files that tell what a stage has left, by what each is."""
    if node.do == TRAIN:
        return dict(_of_training(path))
    if path.is_file():
        return {path.name: path}
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): one for one in files if one.name not in OWN}


def _of_training(folder: Path) -> Iterator[tuple[str, Path]]:
    """The best and the last weights, and what the run keeps to be used without its data."""
    store = Store(folder / FOLDER)
    for name in (BEST, LAST):
        found = store.link(name)
        for file in (MODEL, AVERAGED) if found is not None else ():
            if found is not None and (found / file).is_file():
                yield f"{name}/{file}", folder / FOLDER / found.name / file
    for path in sorted((folder / TOKENIZERS).rglob("*")):
        if path.is_file():
            yield f"{TOKENIZERS}/{path.relative_to(folder / TOKENIZERS)}", path


def _manifests(node: Node) -> list[Path]:
    """Further files that must stay as they are."""
    if node.do != TRAIN:
        return []
    found = (Store(node.folder / FOLDER).link(name) for name in (BEST, LAST))
    return [node.folder / FOLDER / one.name / MANIFEST for one in found if one is not None]


def finish(node: Node, artifact: Artifact, made: Mapping[str, Any], seconds: float) -> Artifact:
    """Write `done.json` of a stage that has left an artifact; the artifact, known by what it holds."""
    roles = _roles(node, artifact.path)
    with storage("read", artifact.path):
        facts = {name: Facts.of(path) for name, path in roles.items()}
        others = {path: Facts.of(path) for path in _manifests(node)}
    content = hash_of({name: one.sha256 for name, one in facts.items()})
    files = {_place(node, roles[name]): list(one) for name, one in facts.items()}
    files |= {_place(node, path): list(one) for path, one in others.items()}
    record = {
        "format": FORMAT,
        "stage": node.name,
        "do": node.do,
        "identity": hash_of(made),
        "made_of": dict(made),
        "artifact": _place(node, artifact.path),
        "content": content,
        "files": files,
        "metrics": finite(artifact.metrics),
        "seconds": round(seconds, 3),
        "seed": [_seed(node), node.name],
    }
    write_sealed(node.folder / DONE, record)
    return _artifact(node, record)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those numbers that JSON can hold."""
    return {name: value for name, value in metrics.items() if abs(value) < float("inf")}


def _seed(node: Node) -> int | None:
    composed = node.made.composed
    return None if composed is None else composed.loaded.config.run.seed


def _place(node: Node, path: Path) -> str:
    """A path as it is written down: from the stage's folder, where it lies in there."""
    return str(path.relative_to(node.folder)) if path.is_relative_to(node.folder) else str(path)


def _artifact(node: Node, record: Mapping[str, Any]) -> Artifact:
    return Artifact(node.name, node.folder / record["artifact"], record["content"], metrics=record["metrics"])


# -- how a stage stands --------------------------------------------------------------------------------------------


def record_of(folder: Path) -> dict[str, Any]:
    """What the `done.json` of a stage's folder holds; nothing where there is none to believe."""
    record = sealed_or_empty(folder / DONE)
    return record if record.get("format") == FORMAT else {}


def left_by(node: Node) -> Standing:
    """Whether a stage is done, whatever it would be made of now."""
    record = record_of(node.folder)
    if not record:
        return Standing(_unfinished(node.folder))
    facts = {name: Facts(*one) for name, one in record["files"].items()}
    damaged = first_damaged(node.folder, facts, node.folder / CHECKED)
    if damaged is not None:
        return Standing(DAMAGED, f"{damaged} is damaged or missing", record=record)
    if node.do == TRAIN and _linked(node) != record["content"]:
        return Standing(DAMAGED, "its best or last checkpoint is another", record=record)
    return Standing(FINISHED, artifact=_artifact(node, record), record=record)


def _linked(node: Node) -> str:
    """The content of a training by the checkpoints that it links to, whose files are believed."""
    record = record_of(node.folder)
    known = {str(node.folder / name): one[1] for name, one in record["files"].items()}
    return hash_of({name: known.get(str(path), "") for name, path in _of_training(node.folder)})


def _unfinished(folder: Path) -> str:
    """How a stage stands that has not ended."""
    if is_locked(folder):
        return RUNNING
    return INTERRUPTED if (folder / BEGUN).is_file() else MISSING


def standing(node: Node, made: Mapping[str, Any]) -> Standing:
    """How a stage stands that would be made of this now."""
    found = left_by(node)
    match found.state:
        case "done":
            why = changed(node, (found.record or {})["made_of"], made)
            return Standing(STALE, why, found.artifact, found.record) if why else found
        case "interrupted":
            why = changed(node, sealed_or_empty(node.folder / BEGUN).get("made_of", {}), made)
            return Standing(STALE, why) if why else found
    return found


def begin(node: Node, made: Mapping[str, Any]) -> None:
    """Write down what a stage is begun with."""
    write_sealed(node.folder / BEGUN, {"format": FORMAT, "identity": hash_of(made), "made_of": dict(made)})


def mends_itself(node: Node) -> bool:
    """Whether a stage that is damaged makes anew what is damaged alone, to the same bits."""
    return node.do == ALIGN


def set_aside(folder: Path) -> Path | None:
    """Keep the folder of a stage under another name; None where there is nothing to keep."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    place = next(place for n in count(1) if not (place := folder.with_name(f"{folder.name}.old-{n}")).exists())
    if is_locked(folder):
        raise StorageError(f"{folder} is in use by another process.")
    with storage("set aside", folder):
        folder.rename(place)
    return place
