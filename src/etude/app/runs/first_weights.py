"""First weights that a run takes from other models, before its first step alone: read, loaded and listed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from etude.app.runs.folder import CONFIG, has_checkpoint, tokenizer_hashes
from etude.app.runs.run import Run
from etude.base.errors import RefusedError
from etude.base.files import json_or_empty, write_json
from etude.base.says import Say
from etude.tasks.config import Config
from etude.tasks.task_type import TOKENIZERS
from etude.train.memory.preload import Source, as_json, preload, read_source
from etude.train.task import Task

INIT = "init.json"
"""The file of a run folder that lists where each first weight came from."""


def read_sources(config: Config, folder: Path) -> list[Source]:
    """Read what `init.from` names; nothing for a run that has a checkpoint to go on from.

    Raises ConfigError where something is not there, StorageError where it is damaged.
    """
    tables = () if has_checkpoint(folder) else config.init.from_
    sources = [read_source(table, f"init.from[{number}]") for number, table in enumerate(tables)]
    return [replace(source, structure=_structure(source)) if source.wanted.grow else source for source in sources]


def _structure(source: Source) -> Task | None:
    """The task of the run that a source is of; None where it is of none that a config has made."""
    run = source.place.parent.parent
    if not (run / CONFIG).is_file():
        return None
    try:
        return Run(run, allow_code=False).load(str(source.place), device="cpu")
    except RefusedError as error:
        raise RefusedError(
            f"{source.key}: grow = true builds the model of {run}, whose config names code of its own, and that does "
            f"not run here."
        ) from error


def fingerprints(sources: Sequence[Source]) -> dict[str, str]:
    """What a run notes of each source beside its data: a hash of the content."""
    return {source.key: source.sha256 for source in sources}


def load_first_weights(task: Task, sources: Sequence[Source], folder: Path, say: Say) -> None:
    """Load the sources into a task; what was and was not loaded is said, and listed in the run folder.

    Raises ConfigError, before anything is loaded, where a pattern means nothing or a tensor does not fit.
    """
    path = folder / INIT
    if not sources:
        if not has_checkpoint(folder):
            with suppress(FileNotFoundError):
                path.unlink()  # of a start before, which saved nothing
        return
    transfers = preload(task, sources)
    told = as_json(transfers)
    for sentence in (*_changed(json_or_empty(path), told), *map(str, transfers), *_other_tokens(sources, folder)):
        say(sentence)
    write_json(path, told)


def _other_tokens(sources: Sequence[Source], folder: Path) -> Iterator[str]:
    """A sentence for each source that is a run's with other tokens than those of the run in `folder`."""
    own = tokenizer_hashes(folder)
    for source in sources:
        run = source.place.parent.parent
        theirs = tokenizer_hashes(run)
        if theirs and own and theirs != own:
            files = ", ".join(str(run / TOKENIZERS / name) for name in theirs)
            yield (
                f"{run} was trained with other tokens: what is loaded of embeddings and output layers stands for "
                f'those. To use its tokens give tokenizer.type = "file", with the path {files}.'
            )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each source whose content is another than at a start before, which saved nothing."""
    try:
        hashes = {table["checkpoint"]: table["sha256"] for table in before["from"]}
    except (LookupError, TypeError):  # there was none, or it has been changed
        return
    for table in now["from"]:
        name = table["checkpoint"]
        if hashes.get(name, table["sha256"]) != table["sha256"]:
            yield f"{name} has changed since this run was first started: it begins anew, with what is there now."
