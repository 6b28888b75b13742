"""Etude's own form of an exported model: as much of a run folder as `etude predict` needs."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from etude.base.config.components import is_import_path
from etude.base.config.writing import toml
from etude.base.errors import ConfigError
from etude.base.files import write_json, write_text
from etude.tasks.kept import keep_processor
from etude.tasks.task_type import TOKENIZERS, Kept
from etude.train.memory.checkpoint.content import ALIASES, MODEL
from etude.train.memory.checkpoint.nest import snapshot
from etude.train.memory.checkpoint.tensors import write_tensors
from etude.train.task import Task

CONFIG = "config.toml"
SECTIONS = ("task", "model")
"""Sections of the config by which Etude makes the model again; the others tell of a machine and of its data."""


def write_own_form(task: Task, kept: Kept, folder: Path, more: Mapping[str, object] | None = None) -> str:
    """Write weights, config and processor into `folder`, and say how they are used; `more` are sections of the config.

    Raises ConfigError for a task or a model of the user's own.
    """
    paths = [kept.plain[section].get("type") for section in SECTIONS]
    foreign = [path for path in paths if is_import_path(path)]
    if foreign:
        raise ConfigError(
            f"Code of your own ({foreign[0]}) is not part of an export: only the weights are {kept.weights}."
        )
    tensors, aliases = snapshot(task.state_dict())
    write_tensors(folder / MODEL, tensors)
    if aliases:
        write_json(folder / ALIASES, {MODEL: aliases})
    sections = {name: kept.plain[name] for name in kept.plain if name in SECTIONS}
    write_text(folder / CONFIG, toml({"run": {"name": kept.config.run.name}, **sections, **(more or {})}))
    keep_processor(kept.processor, folder / TOKENIZERS)
    named = shlex.quote(str(kept.place))
    return f"Etude's own form, which transformers does not read: etude predict {named} --checkpoint {named}"
