"""A run's model as a folder that others can load: of the `transformers` library, or Etude's own."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.app.corpus import TOKENIZERS
from etude.app.runs.folder import CONFIG
from etude.app.runs.run import Run
from etude.base.config.components import Imported
from etude.base.config.writing import toml
from etude.base.errors import ConfigError
from etude.base.files import whole_folder, write_json, write_text
from etude.model.decoder import Decoder
from etude.tasks.hf.folder import quiet, write_parts
from etude.tasks.hf.task import HfTask
from etude.tasks.language_model.task import LanguageModelTask
from etude.train.memory.checkpoint.content import ALIASES, MODEL
from etude.train.memory.checkpoint.nest import snapshot
from etude.train.memory.checkpoint.store import BEST
from etude.train.memory.checkpoint.tensors import write_tensors
from etude.train.task import Task

KEPT = ("task", "model")
"""Sections of the config by which Etude makes the model again; the others tell of a machine and of its data."""


def export(run: str | Path, folder: str | Path, *, weights: str = BEST, allow_code: bool = True) -> str:
    """Write the model of `run` (the averaged weights of `weights`, where an average was kept) into `folder`.

    Says in a sentence what was written. The folder appears whole or not at all. Raises ConfigError where it holds
    something already, or where the model cannot be exported.
    """
    place = Path(folder)
    check_place(place)
    opened = Run(run, allow_code=allow_code)
    opened.checkpoint(weights)
    task = opened.load(weights, device="cpu")
    return export_task(task, place, lambda part: _own(opened, task, part, place))


def export_task(task: Task, folder: Path, otherwise: Callable[[Path], str]) -> str:
    """Write the model of `task` into `folder`; where transformers has none like it, what `otherwise` writes."""
    if isinstance(task, HfTask):
        return whole(folder, lambda part: _transformers(task.model, task.tokenizer, part))
    if isinstance(task, LanguageModelTask) and isinstance(task.model, Decoder):
        from etude.app.export_decoder import exported_decoder

        if task.tokenizer is None:
            raise ConfigError("A language model is exported with its tokenizer, but the task has none.")
        made, tokenizer = exported_decoder(task.model, task.tokenizer)
        return whole(folder, lambda part: _transformers(made, tokenizer, part))
    return whole(folder, otherwise)


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something. Raises ConfigError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty: give a new folder.")


def whole(folder: Path, write: Callable[[Path], str]) -> str:
    """Let `write` fill a folder beside `folder`, and move it there once it is whole and durable."""
    check_place(folder)
    with whole_folder(folder.absolute(), "write") as part:
        return write(part)


def _transformers(model: Any, tokenizer: Any, folder: Path) -> str:
    with quiet():
        model.save_pretrained(folder)
    write_parts(model, tokenizer, folder)
    kind = "Seq2SeqLM" if model.config.is_encoder_decoder else "CausalLM"
    return f"{type(model).__name__} of transformers, which AutoModelFor{kind}.from_pretrained reads, and its tokenizer."


def _own(run: Run, task: Task, folder: Path, place: Path) -> str:
    """Write Etude's own form into `folder`, which will be `place`: as much of a run folder as predict needs."""
    config = run.loaded.config
    foreign = [entry.type for entry in (config.task, config.model) if isinstance(entry, Imported)]
    if foreign:
        raise ConfigError(
            f"Code of your own ({foreign[0]}) is no part of an export: the weights alone are "
            f"{run.folder / 'checkpoints' / 'best' / MODEL}."
        )
    tensors, aliases = snapshot(task.state_dict())
    write_tensors(folder / MODEL, tensors)
    if aliases:
        write_json(folder / ALIASES, {MODEL: aliases})
    kept = {key: value for key, value in run.config.items() if key in KEPT}
    write_text(folder / CONFIG, toml({"run": {"name": run.loaded.config.run.name}, **kept}))
    shutil.copytree(run.folder / TOKENIZERS, folder / TOKENIZERS)
    named = shlex.quote(str(place))
    return f"Etude's own form, which transformers does not read: etude predict {named} --checkpoint {named}"
