"""`etude align`: where in its recordings a run's transcripts lie."""

import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from etude.app.cli.loading import open_run
from etude.app.cli.streams import say
from etude.base.errors import ConfigError, DataError, EtudeError
from etude.base.files import make_folder, write_text
from etude.base.paths import user_path
from etude.tasks.aligners import FORMS, AlignmentAsked

TOLD = 100
"""Recordings without an alignment that are named; the others are counted."""
GIVEN = "test"
"""The split in whose place DATA is read."""


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Align, and write what is asked for of that."""
    _check(arguments)
    words = overrides if arguments.data is None else [*overrides, f"--data.{GIVEN}", arguments.data]
    opened = open_run(arguments, words)
    split = arguments.split if arguments.data is None else GIVEN
    name = arguments.name or (split if arguments.data is None else Path(arguments.data).stem)
    with _called(arguments.data):
        stored = opened.align(
            split, name=name, weights=arguments.checkpoint, device=arguments.device, **_options(arguments)
        )
    if arguments.form is not None:
        _write(arguments.output, stored.files(arguments.form))
    if arguments.picture is not None:
        _write(arguments.picture, stored.pictures(arguments.pictures))
    code = _tell(stored.missing)
    say(f"{stored.aligned:,} of {stored.aligned + len(stored.missing):,} recordings are aligned: {stored.folder}")
    return code


def _check(arguments: Namespace) -> None:
    """Refuse flags that do not go together, before anything is loaded. Raises ConfigError."""
    if (arguments.form is None) != (arguments.output is None):
        raise ConfigError("--format and --output go together: what is written, and the folder that it is written to.")
    if arguments.form not in {None, *FORMS}:
        raise ConfigError(f"--format must be {', '.join(FORMS)}, but is {arguments.form}.")
    if not re.fullmatch(r"(?!\.\.?$)[^/\\\0\n]+", arguments.name or "usual"):
        raise ConfigError(f'--name must be the name of one folder, but is "{arguments.name}".')
    for flag, value in (("shard-size", arguments.shard_size), ("pictures", arguments.pictures)):
        if value < 1:
            raise ConfigError(f"--{flag} must be at least 1, but is {value}.")


def _options(arguments: Namespace) -> dict[str, Any]:
    """How it is asked for, by the names of the flags."""
    given = vars(arguments)
    return {field.name: given[field.name] for field in fields(AlignmentAsked) if field.name in given}


@contextmanager
def _called(data: str | None) -> Iterator[None]:
    """Let what is said of a manifest that was given as DATA call it so."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([_renamed(problem, data) for problem in error.problems]) from error
    except EtudeError as error:
        error.args = tuple(_renamed(str(part), data) for part in error.args)
        raise


def _renamed(told: str, data: str | None) -> str:
    return told if data is None else told.replace(f"data.{GIVEN}", "DATA")


def _write(folder: str, files: Iterable[tuple[str, str]]) -> None:
    """Write files into a folder, and say how many."""
    place, count = user_path(folder), 0
    for name, text in files:
        make_folder((place / name).parent)
        write_text(place / name, text)
        count += 1
    say(f"Written: {count:,} file{'s' * (count != 1)} in {folder}")


def _tell(missing: Mapping[str, str]) -> int:
    """Name what has no alignment, and why; the code to end with."""
    for place, why in islice(missing.items(), TOLD):
        say(f"etude: {place}: {why.removesuffix('.')}.")
    if len(missing) > 1:
        more = f", of which the first {TOLD} are named above" if len(missing) > TOLD else ""
        say(f"etude: {len(missing):,} recordings could not be aligned{more}.")
    return DataError.exit_code if missing else 0
