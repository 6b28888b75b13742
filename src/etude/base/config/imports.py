"""Imports the user's own parts, and checks what a config hands them."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.base.config.fields import FILE_MARK
from etude.base.config.reading import shown
from etude.base.errors import ConfigError, RefusedError
from etude.base.near import nearest
from etude.base.paths import user_path

_foreign: list[Path] = []
"""The folders whose configs are being used without that code of theirs may run."""


@contextmanager
def code_of(folder: Path, *, allowed: bool) -> Iterator[None]:
    """Let no import path be resolved in the block unless the code that the config of `folder` names may run."""
    if allowed:
        yield
        return
    _foreign.append(folder)
    try:
        yield
    finally:
        _foreign.remove(folder)


def refused(folder: Path, spec: str) -> RefusedError:
    """What is said where the config of a folder would run code that nobody has allowed it to."""
    return RefusedError(f"The config of {folder} runs code of its own ({spec}); give --allow-code if you trust it.")


NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
"""Kinds of parameter that a config can give by name."""


def resolve_import(spec: str, key: str = "") -> Any:
    """Import what `package.module:Class` or `/path/net.py:build` names; messages begin with the `key` that says so.

    A file is run once per process, as a module of its own name; its folder is searched for what it imports in turn.
    Every import path of a config is resolved here, and nowhere else. Raises ConfigError, one sentence, when there is
    no such module, file or name, or when its code fails; RefusedError inside of `code_of` a folder that may run none.
    """
    if _foreign:
        raise refused(_foreign[-1], spec)
    try:
        return _resolved(spec)
    except ConfigError as error:
        raise ConfigError([f"{key} {problem}".strip() for problem in error.problems]) from error


def _resolved(spec: str) -> Any:
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ConfigError(f'"{spec}" must be "package.module:Class" or "file.py:name".')
    found: Any = _module_of_file(user_path(place), spec) if f"{place}:".endswith(FILE_MARK) else _module(place, spec)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f'"{spec}" cannot be imported: {place} has no {part}{_near(part, vars(found))}')
        found = getattr(found, part)
    return found


def _near(name: str, known: Iterable[str]) -> str:
    """End a sentence by the public name that was meant, if one is close."""
    near = nearest(name, (one for one in known if not one.startswith("_")))
    return f'; did you mean "{near}"?' if near else "."


def check_signature(
    function: Callable[..., object],
    arguments: Iterable[str],
    where: str,
    *,
    supplied: Collection[str] = (),
    positional: int = 0,
    locate: Callable[[str], object] | None = None,
) -> None:
    """Refuse arguments that a function or class does not take, and miss those that it needs.

    `where` is the dotted key of the component. Etude itself passes the first `positional` parameters and those that
    `supplied` names. `locate` gives the place of a key for the message, such as `Loaded.origin`. Raises ConfigError
    with all at once.
    """
    parameters = _parameters(function)
    if parameters is None:
        return
    call = _Call(parameters, list(arguments), supplied, positional)
    name, end = getattr(function, "__qualname__", str(function)), _end_of(locate)
    problems = [
        f"{where}.{key} is not an argument of {name}; {_advice(key, call.known, where)}{end(f'{where}.{key}')}"
        for key in call.unknown
    ]
    problems += [f"{where}.{key} is missing: {name} needs it{end(where)}" for key in call.missing]
    if problems:
        raise ConfigError(problems)


class _Call:
    """Which of the arguments given a function takes, and what it lacks."""

    def __init__(
        self, parameters: Sequence[inspect.Parameter], given: Sequence[str], supplied: Collection[str], positional: int
    ) -> None:
        named = [one for one in parameters[positional:] if one.kind in NAMED]
        needed = [one.name for one in named if one.default is inspect.Parameter.empty]
        self.known = _without([one.name for one in named], supplied)
        self.unknown = [] if _takes_anything(parameters) else _without(given, self.known)
        meant = [nearest(key, self.known) for key in self.unknown]  # a misspelt argument is one mistake, not two
        self.missing = _without(needed, [*supplied, *given, *meant])


def _without(names: Iterable[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]


def _end_of(locate: Callable[[str], object] | None) -> Callable[[str], str]:
    """What ends a sentence about a key: where it stands, if anybody knows."""
    return lambda key: f" ({locate(key)})." if locate else "."


def _advice(key: str, known: Sequence[str], where: str) -> str:
    near = nearest(key, known)
    if near:
        return f"did you mean {where}.{near}?"
    return f"it takes {', '.join(known)}" if known else "it takes none"


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter] | None:
    """Give the parameters of a function or class; None where it does not tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return None


def _takes_anything(parameters: Iterable[inspect.Parameter]) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f'"{spec}" cannot be imported: there is no module {error.name} here.') from error
        raise ConfigError(_failed(spec, error)) from error
    except Exception as error:
        raise ConfigError(_failed(spec, error)) from error


def _module_of_file(path: Path, spec: str) -> ModuleType:
    path = path.absolute()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"{path.stem}_{digest}"
    return sys.modules[name] if name in sys.modules else _run(path, name, spec)


def _run(path: Path, name: str, spec: str) -> ModuleType:
    """Run a file as the module `name`."""
    if not path.is_file():
        raise ConfigError(f'"{spec}" cannot be imported: {shown(path)} is not a file.')
    plan = importlib.util.spec_from_file_location(name, path)
    if plan is None or plan.loader is None:
        raise ConfigError(f'"{spec}" cannot be imported: {shown(path)} is not a Python file.')
    module = importlib.util.module_from_spec(plan)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        plan.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(_failed(spec, error)) from error
    return module


def _failed(spec: str, error: Exception) -> str:
    """Say that importing ran code that failed, and where."""
    if isinstance(error, SyntaxError):
        return f'"{spec}" cannot be imported: {error.msg} ({shown(Path(error.filename or ""))}, line {error.lineno}).'
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split()) or "no message"
    place = f"{shown(Path(frame.filename))}, line {frame.lineno}"
    return f'"{spec}" cannot be imported: {type(error).__name__}: {said} ({place}).'
