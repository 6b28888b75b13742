"""The files that a value of a config names, whatever form it has."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from etude.base.errors import DataError
from etude.data.files.lines import shown


def files_named(value: object, key: str) -> Iterator[Path]:
    """List the files that a value names: by a path, by several, or by a section with paths; of a folder, those in it.

    Hidden files and folders are left out, and so are names of corpora. Raises DataError, which begins with `key`, where
    one is not there.
    """
    match value:
        case Path():
            yield from _of_path(value, key)
        case tuple() | list():
            for part in value:
                yield from files_named(part, key)
        case BaseModel():
            for name in type(value).model_fields:
                yield from files_named(getattr(value, name), key)


def _of_path(path: Path, key: str) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(_inside(path))
    elif os.path.lexists(path):
        yield path
    else:
        raise DataError(f"{key} names {shown(path)}, which does not exist.")


def _inside(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith("."))
