"""A mistake as a row of a table: what a user writes, and what the one line that answers must hold."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etude.app.cli.main import main

RUN = Path("runs") / "translate"

PAIRS = "source\ttarget\n" + "".join(f"{word}\t{word.upper()}\n" for word in ("one", "two", "three", "four", "five"))

BASE: dict[str, dict[str, str]] = {
    "task": {"type": '"translation"', "eval_search_samples": "0"},
    "data": {"train": '"train.tsv"', "val": '"val.tsv"'},
    "tokenizer": {"type": '"byte"'},
    "model": {"d_model": "8", "heads": "2", "encoder_layers": "1", "decoder_layers": "1", "feedforward": "8"},
    "optimizer": {"learning_rate": "1e-3"},
    "train": {
        "batch_size": "4",
        "max_duration": '"2 steps"',
        "save_every": '"1 step"',
        "sanity_batches": "1",
        "device": '"cpu"',
        "precision": '"float32"',
    },
    "log": {"progress": "false", "tensorboard": "false"},
}
"""A config without a mistake, small enough to train in a moment."""

Edit = Mapping[str, str | None]
"""Lines `key = value` by section, added to a config or in the place of its own; a key alone is taken away, by None a
whole section.

A section in brackets is an element of a list of tables; the section "" is the top of the file.
"""


@dataclass(frozen=True)
class Mistake:
    """One row."""

    name: str
    """What is wrong, as the test's name."""
    says: tuple[str, ...]
    """What the one line must hold."""
    code: int = 2
    edit: Edit = field(default_factory=dict)
    """What is wrong with the config."""
    at: str = ""
    """A text of the config whose line the answer must name."""
    words: tuple[str, ...] = ("train", "translate.toml")
    """The command line."""
    files: Mapping[str, str | bytes | None] = field(default_factory=dict)
    """Files beside the usual ones or in their place; None for one that is missing."""
    spoil: Callable[[Path], object] | None = None
    """What is done to the run folder first."""

    def __str__(self) -> str:
        """Name the test."""
        return re.sub(r"[^a-zA-Z0-9]+", "_", self.name).strip("_")


def config(edit: Edit | None = None) -> str:
    """The text of the usual config, changed by `edit`."""
    sections: dict[str, dict[str, str]] = {"": {}} | {name: dict(keys) for name, keys in BASE.items()}
    for name, lines in (edit or {}).items():
        if lines is None:
            del sections[name]
            continue
        for line in lines.splitlines():
            key, given, value = line.partition(" = ")
            keys = sections.setdefault(name, {})
            if given:
                keys[key] = value
            else:
                del keys[key]
    text = "".join(f"{key} = {value}\n" for key, value in sections.pop("").items())
    for name, keys in sections.items():
        text += f"\n[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
    return text


def write(home: Path, files: Mapping[str, str | bytes | None]) -> None:
    """Write `files` beside good data."""
    for name, content in ({"train.tsv": PAIRS, "val.tsv": PAIRS} | dict(files)).items():
        if content is not None:
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def line_of(text: str, wanted: str) -> str:
    """Where `wanted` stands in the config, as a message says it."""
    return f"translate.toml, line {next(n for n, line in enumerate(text.splitlines(), 1) if wanted in line)}"


def expected(mistake: Mistake) -> tuple[str, ...]:
    """Everything that the answer must hold."""
    return (*mistake.says, line_of(config(mistake.edit), mistake.at)) if mistake.at else mistake.says


def answer(capsys, words) -> tuple[int, list[str], str]:
    """Give the shell a command: its exit code, its error lines, and all it said on stderr."""
    capsys.readouterr()
    code = main(list(words))
    heard = capsys.readouterr()
    errors = [line for line in heard.err.splitlines() if line.startswith("etude: ")]
    return code, errors, heard.err


def check(mistake: Mistake, capsys) -> None:
    """Make the mistake, and hold the answer against the row."""
    code, errors, heard = answer(capsys, mistake.words)

    assert "Traceback" not in heard
    assert len(errors) == 1, heard
    assert heard.splitlines()[-1] == errors[0]
    missing = [part for part in expected(mistake) if part not in errors[0]]
    assert not missing, f"{missing} not in: {errors[0]}"
    assert code == mistake.code, errors[0]
