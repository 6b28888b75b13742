"""Parallel text: what the `[data]` section names, opened as pairs by number."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from etude.base.errors import DataError
from etude.base.paths import user_path
from etude.base.says import Say, unheard
from etude.data.files.header import SIDES
from etude.data.files.json_lines import JSON_LINES
from etude.data.files.lines import LineFile, shown
from etude.data.files.names import PAIRED, AlignedFiles, ColumnName, Files, Roles, Split, listed
from etude.data.files.pair_sources import (
    AlignedPair,
    Concatenated,
    JsonLines,
    ListedPairs,
    NumberedPairs,
    Pair,
    PairSource,
)
from etude.data.files.skipped import BadSampleError
from etude.data.files.table_file import AS_WRITTEN, TableFile, TableForm, check_directions

__all__ = ["SIDES", "BadSampleError", "ListedPairs", "Pair", "PairSource", "open_again", "open_pairs"]

GENERATED = TableForm(header=True, quotes=False)
TABLES = (".tsv", ".txt", ".csv")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")


def open_pairs(
    split: Split,
    *,
    source: ColumnName = "source",
    target: ColumnName = "target",
    form: TableForm = AS_WRITTEN,
    cache: Path | None = None,
    notice: Say = unheard,
    key: str = "data.train",
    roles: Roles = PAIRED,
) -> PairSource:
    """Open what `split` names: a file, several one after the other, two aligned files, or a generated corpus.

    `source` and `target` are names of columns or fields, or numbers of columns from 1 on; aligned files and generated
    corpora do not need them. `form` says how tables are written. The index of lines goes to the `cache` folder.
    `notice` hears what a user should know. `key` is what the config calls the split, `roles` says what the two texts
    are. Raises DataError, naming the file, where one is missing, empty, of an unknown kind, or not aligned.
    """
    files: Files
    if isinstance(split, str):
        files, (source, target), form = _generated(split, key, cache, notice), roles.names, GENERATED
    else:
        files = split
    if isinstance(files, AlignedFiles):
        parts: Sequence[NumberedPairs] = _aligned(files, key, cache)
    else:
        paths = [*map(user_path, listed(files))]
        _check_there(paths, key, roles)
        parts = [_open_file(path, (source, target), form, cache, notice, roles) for path in paths]
        check_directions([part for part in parts if isinstance(part, TableFile)], key, roles)
    opened = parts[0] if len(parts) == 1 else Concatenated(parts)
    if roles is PAIRED:
        opened.recipe = json.dumps([_plain(files), source, target, form, cache and str(cache)])
    return opened


def _aligned(files: AlignedFiles, key: str, cache: Path | None) -> list[AlignedPair]:
    sources, targets = files.pairs(key)
    _check_there([*sources, *targets], key, PAIRED)
    sides = [[LineFile(path, cache) for path in side] for side in (sources, targets)]
    return [AlignedPair(one, other) for one, other in zip(*sides, strict=True)]


def open_again(recipe: str) -> PairSource:
    """Open the source whose `recipe` this is."""
    split, source, target, form, cache = json.loads(recipe)
    paths = AlignedFiles(**split) if isinstance(split, dict) else [Path(path) for path in split]
    return open_pairs(paths, source=source, target=target, form=TableForm(*form), cache=Path(cache) if cache else None)


def _plain(files: Files) -> object:
    return files.model_dump(mode="json") if isinstance(files, AlignedFiles) else [str(path) for path in listed(files)]


def _check_there(paths: Iterable[Path], key: str, roles: Roles) -> None:
    """Name the first file that is missing, before any is read."""
    for path in paths:
        if not os.path.lexists(path):
            names = [] if path.suffix else roles.corpora()
            known = f"; generated corpora are {', '.join(names)}" if names else ""
            raise DataError(f"{key} names {shown(path)}, which does not exist{known}.")


def _open_file(
    path: Path, wanted: tuple[ColumnName, ColumnName], form: TableForm, cache: Path | None, notice: Say, roles: Roles
) -> NumberedPairs:
    kind = path.suffix.lower()
    if kind in TABLES:
        return TableFile(LineFile(path, cache), wanted, notice, form, cache, roles)
    if kind in JSON_LINES:
        return JsonLines(LineFile(path, cache), *wanted, roles)
    if kind in SPREADSHEETS:
        raise DataError(f"{shown(path)} is a spreadsheet: save it as .csv (in UTF-8) or .tsv, and give that.")
    raise DataError(f"{shown(path)} must be a table (.tsv, .txt, .csv) or JSON lines (.jsonl, .ndjson){roles.also}.")


def _generated(name: str, key: str, cache: Path | None, notice: Say) -> Files:
    """Write a generated corpus into the cache, and name the files of the part that `key` (`data.train`) asks for."""
    from etude.data.corpora import AUDIO, generate, generate_audio

    if cache is None:
        raise DataError(f"{key} is the generated corpus {shown(name)}, which needs a cache folder to be written to.")
    write = generate_audio if name in AUDIO else generate
    made: Mapping[str, Files] = write(name, cache / "corpora" / name, notice=notice)
    return made[key.rpartition(".")[2]]
