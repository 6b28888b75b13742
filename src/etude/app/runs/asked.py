"""Options of a prediction from Python: those of the shell's flags that are short for a key of the config."""

from collections.abc import Mapping, Sequence

from etude.base.config.command import Override, Overrides, parse
from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.tasks.flags import Flag


def with_options(overrides: Overrides, flags: Sequence[Flag], options: Mapping[str, object]) -> list[Override]:
    """The overrides of a run and, after them, the options; each names its flag: `beam_size`, `temperature`.

    Raises ConfigError that names the nearest for every option that no flag of the run's task has.
    """
    known = {flag.word: flag.key for flag in flags if flag.key}
    problems = [_unknown(name, known) for name in options if name not in known]
    if problems:
        raise ConfigError(problems)
    return [*parse(overrides), *(_override(name, known[name], value) for name, value in options.items())]


def _override(name: str, key: str, value: object) -> Override:
    return Override(tuple(key.split(".")), value, f"predict({name}=...)")


def _unknown(name: str, known: Mapping[str, str]) -> str:
    near = nearest(name, known)
    advice = f"did you mean {near}?" if near else f"this run's task takes {', '.join(known)}."
    return f"{name} is not an option of predict; {advice}"
