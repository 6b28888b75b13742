"""A run's model as a folder that others can load: of the `transformers` library, or Etude's own."""

import os
from collections.abc import Callable
from pathlib import Path

from etude.app.runs.run import Run
from etude.base.errors import ConfigError
from etude.base.files import whole_folder
from etude.base.paths import user_path
from etude.tasks.task_type import ONNX
from etude.train.memory.checkpoint.store import BEST

FORMS = ("auto", ONNX)


def export(
    run: str | Path, folder: str | Path, *, weights: str = BEST, allow_code: bool = True, form: str = "auto"
) -> str:
    """Write the model of `run` (the averaged weights of `weights`, where an average was kept) into `folder`.

    `form` is "onnx", or "auto": that of the transformers library where it has the model, else Etude's own. Says in a
    sentence what was written. The folder appears whole or not at all. Raises ConfigError where it holds something
    already, or where the model cannot be exported.
    """
    if form not in FORMS:
        raise ConfigError(f"--format must be {' or '.join(FORMS)}, but is {form}.")
    place = user_path(folder)
    check_place(place)
    opened = Run(run, allow_code=allow_code)
    return whole(place, lambda part: opened.export(part, place, weights=weights, form=form))


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something. Raises ConfigError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty: give a new folder.")


def whole(folder: Path, write: Callable[[Path], str]) -> str:
    """Let `write` fill a folder beside `folder`, and move it there once it is whole and durable."""
    check_place(folder)
    with whole_folder(Path(os.path.realpath(folder)), "write") as part:
        return write(part)
