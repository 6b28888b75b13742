"""A folder to begin with: which templates there are, and how one becomes a folder."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Final

from etude.app.export import check_place
from etude.app.new.sample import (
    SOUND_SIZES,
    SPEECH_SIZES,
    TEMPLATES,
    Sample,
    arrays,
    loans,
    prompts,
    shipped,
    sounds,
    texts,
)
from etude.base.errors import ConfigError
from etude.base.files import whole_folder, write_text
from etude.base.paths import user_path

CONFIG: Final = "config.toml"
RUN: Final = "runs/config"
"""Where `etude train config.toml` puts its run."""


@dataclass(frozen=True)
class Template:
    """What a folder to begin with is made of."""

    config: str
    """Its file among the templates, without the ending."""
    sample: Sample
    says: str
    """What the run learns."""
    predict: str
    """A command that uses the run."""
    needs: tuple[str, str] | None = None
    """A library that the run cannot do without, and the extra that brings it."""


_AUDIO = ("soundfile", "audio")
TEMPLATE_OF: Final[dict[tuple[str, str | None], Template]] = {
    ("translation", None): Template(
        "translation",
        shipped("translation"),
        "It learns to translate English sentences about numbers into Spanish.",
        f'echo "The train leaves at 7:45." | etude predict {RUN}',
    ),
    ("language_model", None): Template(
        "language_model",
        texts,
        "It learns to write on from the beginning of a text, as Python's help is written.",
        f'etude predict {RUN} --prompt "The statement"',
    ),
    ("hf", None): Template(
        "hf",
        prompts,
        "It trains a model of the transformers library to answer prompts.",
        f'echo "The train leaves at 7:45." | etude predict {RUN}',
        ("transformers", "hf"),
    ),
    ("classification", "text"): Template(
        "classification",
        shipped("classification"),
        "It learns to tell which of seven languages a number in words is of.",
        f'echo "vingt-trois" | etude predict {RUN}',
    ),
    ("classification", "tabular"): Template(
        "classification_tabular",
        loans,
        "It learns to tell which requests for a loan are granted.",
        f"etude predict {RUN} test.tsv",
    ),
    ("classification", "audio"): Template(
        "classification_audio",
        sounds("tone_kinds", SOUND_SIZES),
        "It learns to tell eight kinds of sounds apart.",
        f"etude predict {RUN} test.tsv",
        _AUDIO,
    ),
    ("classification", "arrays"): Template(
        "classification_arrays",
        arrays,
        "It learns to tell three kinds of sequences apart.",
        f"echo one.npy | etude predict {RUN}",
    ),
    ("speech_recognition", None): Template(
        "speech_recognition",
        sounds("tone_letters", SPEECH_SIZES),
        "It learns to transcribe letters that are two tones each.",
        f"etude predict {RUN} test/000000.wav",
        _AUDIO,
    ),
}
"""By task and kind of data; the first of a task is taken unless the kind is named."""


def new(task: str, folder: str | os.PathLike[str], *, data: str | None = None) -> str:
    """Write a folder to begin with for `task`; says what comes next.

    `data` names a kind of data, of a task that has several. The folder must be new or empty, and appears whole or not
    at all. Raises ConfigError for a task or a kind that there is not, and for a folder that holds something.
    """
    template = template_of(task, data)
    place = user_path(folder)
    check_place(place)
    real = Path(os.path.realpath(place))
    if real == Path.cwd():
        raise ConfigError(f"{folder} is the current folder, which would be replaced under the shell: name a new one.")
    with whole_folder(real, "write") as part:
        template.sample(part)
        shutil.copyfile(TEMPLATES / f"{template.config}.toml", part / CONFIG)
        write_text(part / "README.md", readme(task, template))
    return _needed(template)


def template_of(task: str, data: str | None) -> Template:
    """The template of a task. Raises ConfigError, naming what there is."""
    kinds = _by_kind(task)
    if not kinds:
        raise ConfigError(f'There is no task "{task}"; there is {_listed(map(itemgetter(0), TEMPLATE_OF))}.')
    if data is None:
        return next(iter(kinds.values()))
    if data not in kinds:
        there = f"there is {_listed(filter(None, kinds))}" if len(kinds) > 1 else "leave --data out"
        raise ConfigError(f'The task {task} has no kind of data "{data}"; {there}.')
    return kinds[data]


def _by_kind(task: str) -> dict[str | None, Template]:
    return {kind: template for (name, kind), template in TEMPLATE_OF.items() if name == task}


def _listed(names: Iterable[str | None]) -> str:
    """Names, each once."""
    return ", ".join(map(str, dict.fromkeys(names)))


def _needed(template: Template) -> str:
    """What must be installed before the run can begin; nothing where all is there."""
    match template.needs:
        case (library, extra) if find_spec(library) is None:
            return f"It needs {library}, which is not installed: run pip install 'etude[{extra}]'."
    return ""


def readme(task: str, template: Template) -> str:
    """The text that lies beside the config."""
    needs = (
        ""
        if template.needs is None
        else f"\nIt needs {template.needs[0]}: `pip install 'etude[{template.needs[1]}]'`.\n"
    )
    return f"""# A run of the task {task}

`config.toml` describes the run, and the files beside it are a small sample of data. {template.says}
{needs}
Next, in this folder:

```sh
etude check config.toml    # a dry run: files, shapes, memory, time
etude train config.toml    # train; after a stop, the same command resumes
{template.predict}
```

The run lies in `{RUN}`. To use your own data, change `[data]` in `config.toml`; `etude show config.toml` prints every
key with its value.
"""
