"""`etude convert`, and the file of another tool behind `etude train FILE --from NAME`."""

import sys
from argparse import Namespace
from pathlib import Path

from etude.app.cli.meant import too_many
from etude.app.cli.streams import put, say, writing_stdout
from etude.app.convert.composing import convert, convert_alone, tool_named
from etude.base.config.command import parse
from etude.base.config.writing import toml
from etude.base.errors import ConfigError
from etude.base.named_files import write_named
from etude.tasks.config import LoadedConfig, load_config


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print the config of another tool's file: whole with a second file or a task, else what the file itself says."""
    tool, file, second = tool_named(arguments.tool), Path(arguments.config), _second(arguments)
    if second is None and "task" not in {one.key[0] for one in parse(overrides)}:
        data, notes = convert_alone(tool, file, overrides)
    else:
        converted = convert(tool, file, second, overrides)
        data, notes = converted.loaded.data, (*converted.loaded.notes, *converted.notes)
    _tell(notes)
    if arguments.output is None:
        put(toml(data).rstrip("\n"))
    else:
        write_named(Path(arguments.output), toml(data))
    return 0


def load_run(arguments: Namespace, overrides: list[str]) -> LoadedConfig:
    """The config that `etude train` is given; of another tool's file, the composed config is printed."""
    if arguments.tool is None:
        _refuse_second(arguments)
        return load_config(arguments.config, overrides)
    tool = tool_named(arguments.tool)
    converted = convert(tool, Path(arguments.config), _second(arguments), overrides)
    put(converted.loaded.toml().rstrip("\n"))
    with writing_stdout():
        sys.stdout.flush()  # a reader of the config need not wait for the end of the training
    _tell(converted.notes)
    return converted.loaded


def _refuse_second(arguments: Namespace) -> None:
    """Refuse a second file, which only stands beside the file of another tool."""
    if arguments.second is not None:
        raise ConfigError(too_many(arguments.second, "etude train"))
    if arguments.beside is not None:
        raise ConfigError("--with needs --from: it names a config of Etude to go with the other tool's file.")


def _second(arguments: Namespace) -> Path | None:
    names = [name for name in (arguments.second, arguments.beside) if name is not None]
    if len(names) > 1:
        raise ConfigError(f'--with names the second file, but "{arguments.second}" is given too: keep one of them.')
    return Path(names[0]) if names else None


def _tell(notes: tuple[str, ...]) -> None:
    for note in notes:
        say(note)
