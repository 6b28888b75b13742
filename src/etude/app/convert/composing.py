"""Lays what another tool's file says between a config of Etude's, which gives data and model, and the command line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.app.convert.reading import Foreign, read_foreign
from etude.app.convert.slangmod import SLANGMOD
from etude.app.convert.words import Tool
from etude.base.config.command import Override
from etude.base.config.components import is_import_path, quoted
from etude.base.config.composing import compose, dotted
from etude.base.config.fields import plain
from etude.base.config.nest import value_at
from etude.base.config.other_words import words
from etude.base.config.reading import shown
from etude.base.config.section import is_off
from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.tasks.config import Config, LoadedConfig, load_config

TOOLS: Mapping[str, Tool] = {"slangmod": SLANGMOD}
"""Every tool whose files are read, by name."""


@dataclass(frozen=True)
class Converted:
    """A file of another tool in Etude's words."""

    loaded: LoadedConfig
    """The composed config."""
    notes: tuple[str, ...]
    """What was left out or is not quite the same, each in a sentence."""


def tool_named(name: str) -> Tool:
    """The tool called `name`. Raises ConfigError for one whose files Etude does not read."""
    tool = TOOLS.get(name.lower())
    if tool is None:
        raise ConfigError(f'--from must be {quoted(TOOLS)}, but is "{name}"{_advice(name.lower())}')
    return tool


def _advice(name: str) -> str:
    """End the refusal of a tool."""
    if name in {word.tool.lower() for word in words()}:
        return ": Etude knows the words of this tool, but does not read its files yet."
    near = nearest(name, TOOLS)
    return f'; did you mean "{near}"?' if near else "."


def convert(tool: Tool, file: Path, second: Path | None, flags: Sequence[str]) -> Converted:
    """Compose a run of `file` in the tool's words, of `second` in Etude's, and of the flags in both.

    Later wins, key by key: the second file, then the tool's file with the tool's own defaults, then the command line.
    Raises ConfigError with every problem at once.
    """
    parts = _Parts(tool, file, second, flags)
    try:
        loaded = load_config(second, parts.overrides)
    except ConfigError as error:
        raise _explained(error, tool, file, second) from None
    return Converted(loaded, parts.notes)


def convert_alone(tool: Tool, file: Path, flags: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Say in Etude's words what `file` and the flags say, without a task or data: the tables, and the notes.

    A config of Etude's may extend what comes of it. Raises ConfigError with every problem at once.
    """
    parts = _Parts(tool, file, None, flags)
    load_config(None, [*_STAND_IN, *parts.overrides])
    return plain(compose(Config, None, parts.settings).data), parts.notes


_LOSS, _SMOOTHING = ("loss", "type"), ("loss", "label_smoothing")
_OPTIMIZER, _DECAY_ALL = ("optimizer", "type"), ("optimizer", "decay_all")
_BATCH_SIZE, _BATCH_TOKENS = ("train", "batch_size"), ("train", "batch_tokens")

_STAND_IN = [
    Override(("task", "type"), "translation", "stand-in"),
    Override(("data", "train"), "train.tsv", "stand-in"),
    Override(("data", "val"), "val.tsv", "stand-in"),
]
"""What a config must have beside the training, so that the rest of it can be checked."""


class _Parts:
    """What a conversion is composed of."""

    def __init__(self, tool: Tool, file: Path, second: Path | None, flags: Sequence[str]) -> None:
        foreign = read_foreign(tool, file, flags)
        translated = tool.translate(foreign.given)
        below = compose(Config, second, []).data if second else {}
        fitting, dropped = _fitting(translated.settings, below, foreign)
        name = [] if value_at(below, ("run", "name")) else [Override(("run", "name"), file.stem, shown(file))]
        self.settings = [*fitting, *foreign.flags]
        """The tool's settings, then those of the command line, which win."""
        self.overrides = [*name, *self.settings]
        self.notes = (*foreign.notes, *translated.notes, *dropped, *_replaced(tool, fitting, below, second))


def _fitting(
    settings: Sequence[Override], below: Mapping[str, object], foreign: Foreign
) -> tuple[list[Override], list[str]]:
    """Leave out what the user's own parts do not take, and what the command line says in another way."""
    unfit = set(_unfit(below, foreign))
    left_out = unfit.intersection(one.key for one in settings)
    notes = [f"{dotted(_SMOOTHING)} is left out: the loss is your own."] if _SMOOTHING in left_out else []
    return [one for one in settings if one.key not in unfit], notes


def _unfit(below: Mapping[str, object], foreign: Foreign) -> Iterator[tuple[str, ...]]:
    """The keys that are left out of the tool's settings."""
    ours = foreign.ours
    if not is_off(ours.get(_BATCH_TOKENS)) and not foreign.given["batch_size"].is_flag:
        yield _BATCH_SIZE  # where both are flags, it is for Etude to refuse
    if is_import_path(ours.get(_LOSS, _loss_of(below))):
        yield _SMOOTHING
    if _OPTIMIZER in ours or value_at(below, _DECAY_ALL) is not None:
        yield _DECAY_ALL


def _loss_of(below: Mapping[str, object]) -> object:
    """The type of a config's loss, which may be written alone, without a table."""
    return value_at(below, _LOSS) or below.get("loss")


def _replaced(
    tool: Tool, settings: Sequence[Override], below: Mapping[str, object], second: Path | None
) -> Iterator[str]:
    """Tell which values of the second file the tool's take the place of."""
    names = dict.fromkeys(_set_too(settings, below))
    if second is not None and names:
        yield (
            f"{shown(second)} sets {', '.join(names)} too: {tool.name}'s values and defaults count; "
            f"change them by --{tool.section}.KEY."
        )


def _set_too(settings: Sequence[Override], below: Mapping[str, object]) -> Iterator[str]:
    """The keys that a config sets, and the tool in another way."""
    for one in settings:
        if _differs(value_at(below, one.key[:2]), one):
            yield dotted(one.key[:2])
    if value_at(below, _BATCH_TOKENS):
        yield dotted(_BATCH_TOKENS)


def _differs(value: object, one: Override) -> bool:
    return value is not None and (len(one.key) > 2 or value != one.value)  # noqa: PLR2004 - below a section's key


def _explained(error: ConfigError, tool: Tool, file: Path, second: Path | None) -> ConfigError:
    """Say, where task or data are missing, who was to give them."""
    if second is not None or not any(" is missing: " in problem for problem in error.problems):
        return error
    said = (
        f"{shown(file)} gives only the training: add a config of Etude with task, data and model "
        f"(etude train {shown(file)} CONFIG --from {tool.name}), or give flags."
    )
    return ConfigError([*error.problems, said])
