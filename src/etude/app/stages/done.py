"""What a stage's folder says of it: what was begun in it, and how it ended, believed only with the right hashes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from etude.app.runs.pipelines import BEGUN, DONE
from etude.app.stages.depends import changed, hash_of, made_of
from etude.app.stages.names import ALIGN
from etude.app.stages.node import Node
from etude.app.stages.stage import Artifact, Artifacts
from etude.app.stages.tables import TRAIN
from etude.base.errors import ConfigError, DataError, StorageError
from etude.base.files import storage
from etude.base.hashes import Facts, first_damaged, sealed_or_empty, write_sealed
from etude.tasks.task_type import TOKENIZERS
from etude.train.lock import is_locked
from etude.train.memory.checkpoint.content import AVERAGED, MANIFEST, MODEL
from etude.train.memory.checkpoint.naming import FOLDER
from etude.train.memory.checkpoint.shards import files_of
from etude.train.memory.checkpoint.store import BEST, LAST, Store

CHECKED = ".checked"
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
        for kind in (MODEL, AVERAGED) if found is not None else ():
            for file in files_of(kind, folder / FOLDER / found.name) if found is not None else ():
                yield f"{name}/{file.name}", file
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


def standing_of(node: Node, inputs: Artifacts) -> Standing:
    """How a stage stands that takes these; one whose content is not there counts as changed."""
    try:
        return standing(node, made_of(node, inputs))
    except (ConfigError, DataError) as error:
        return replace(
            left_by(node), state=STALE, why=f"what it reads cannot be found ({str(error).removesuffix('.')})"
        )


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
