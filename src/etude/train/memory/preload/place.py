"""Where the weights lie that a path of `init.from` names: in a run its best checkpoint, else in what is named."""

from pathlib import Path
from typing import NamedTuple

from etude.base.errors import ConfigError
from etude.train.memory.checkpoint.content import MODEL
from etude.train.memory.checkpoint.naming import FOLDER, step_of
from etude.train.memory.checkpoint.shards import index_name
from etude.train.memory.checkpoint.store import BEST, LAST, Store

INDEX = index_name(MODEL)
"""Which of several files holds which tensor."""
PICKLED = "pytorch_model.bin"
HOLDING = (MODEL, INDEX, PICKLED)
"""Files, one of which makes a folder one of weights."""


class Place(NamedTuple):
    """A file, or a folder that holds weights."""

    path: Path
    note: str = ""
    """What is to be said of the choice, as a clause."""


def place_of(path: Path, key: str) -> Place:
    """Where the weights lie that `path` names.

    Raises ConfigError, which begins with `key`, where it names none.
    """
    if path.is_file():
        return Place(path)
    found = _checkpoint(path) or _folder(path)
    if found is not None:
        return found
    if not path.exists():
        raise ConfigError(f"{key}: {path} is not there{_instead(path)}.")
    raise ConfigError(
        f"{key}: {path} holds no weights; it must be a run with a checkpoint, a checkpoint, a folder with {MODEL}, a "
        f"file in safetensors, or a state dict that torch.save wrote."
    )


def _checkpoint(path: Path) -> Place | None:
    """The checkpoint that the path of a run, of its `checkpoints`, or of `best`, `last` or a step in them, names."""
    for store, name in _readings(path):
        if name == BEST:
            return _best(store)
        if name == LAST:
            return _there(store.link(LAST))
        found = store.folder / name
        if step_of(found) is not None and found.is_dir():
            return Place(found)
    return None


def _readings(path: Path) -> list[tuple[Store, str]]:
    """Each folder of checkpoints that a path may stand for, with the name in it that is meant."""
    places = [(path / FOLDER, BEST), (path, BEST), (path.parent, path.name), (path.parent / FOLDER, path.name)]
    return [(Store(folder), name) for folder, name in places if folder.name == FOLDER and folder.is_dir()]


def _best(store: Store) -> Place | None:
    best, last = store.link(BEST), store.link(LAST)
    if best is None and last is not None:
        return Place(last, "its last checkpoint, since it has no best")
    return _there(best)


def _there(checkpoint: Path | None) -> Place | None:
    return None if checkpoint is None else Place(checkpoint)


def _folder(path: Path) -> Place | None:
    return Place(path) if any((path / name).is_file() for name in HOLDING) else None


def _instead(path: Path) -> str:
    """What there is in the place of a checkpoint that is not there, as a clause."""
    steps = [step for store, _ in _readings(path) for step in store.steps()]
    return f"; the run has the checkpoints of steps {', '.join(map(str, steps))}" if steps else ""
