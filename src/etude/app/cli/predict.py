"""`etude predict`: lines in, answers out, in order, as they come."""

import contextlib
import io
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TextIO

from etude.app.cli.lines import Lines
from etude.app.cli.loading import open_run
from etude.app.cli.picture import attention_picture, check_attention
from etude.app.cli.pieces import Pieces
from etude.app.cli.streams import INTERRUPTED, is_terminal, printable, say, writing_stdout
from etude.app.cli.together import together
from etude.app.runs.stored import stored_type
from etude.base.errors import ConfigError, DataError
from etude.base.named_files import check_named, named_file
from etude.data.files.lines import UTF16, Flaw, is_utf16
from etude.tasks.best_lines import check_best
from etude.tasks.flags import Flag, given_of
from etude.tasks.table import predict_flags
from etude.tasks.task_type import Asked, Questions
from etude.train.step.precision import PLAIN
from etude.train.world import World

TOLD = 100
"""Lines without an answer that are named; the others are counted."""
LARGEST = 1 << 28
"""Bytes of an input that is one text."""


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Predict every line of the input; of several ranks, as one of them."""
    return together(arguments, overrides, lambda world: _predict(arguments, overrides, world))


def _predict(arguments: Namespace, overrides: list[str], world: World) -> int:
    given = given_of(predict_flags(), vars(arguments))
    check_best(given)
    check_attention(given)
    if arguments.output is not None:
        check_named(Path(arguments.output), "output")
    kind = stored_type(Path(arguments.run), overrides, allow_code=arguments.allow_code)
    if kind is not None:
        name, task_type = kind
        task_type.check_flags({**given, **_shared(arguments)})
        refuse_flags(task_type.flags, given, name)
    refuse_stream(given, arguments.file, world)
    opened = open_run(arguments, [*overrides, *as_overrides(given)])
    opened.checkpoint(arguments.checkpoint)
    with _input(arguments.file) as (stream, name):
        _, predictor = opened.sharing(world, arguments.checkpoint, device=arguments.device)
        if predictor.precision.name != PLAIN:
            say(f"Computed in {predictor.precision}.")
        questions = _questions(stream, name, given, arguments.file)
        if "prompt" not in given and is_terminal(stream):
            _greet(given)
        drawn, place = (given, arguments.output) if world.is_first else ({}, None)
        with attention_picture(drawn) as picture, _output(place) as out:
            asked = asked_by(arguments, given, out)
            asked = replace(asked, attention=picture, terminal=asked.terminal and world.size == 1)
            write_out(predictor.answers(questions, asked), out)
    return questions.code()


def refuse_stream(given: Mapping[str, object], file: str | None, world: World) -> None:
    """Refuse an input that cannot be read by each of several ranks. Raises ConfigError."""
    if world.size > 1 and ("stream" in given or not ("prompt" in given or is_shared(file))):
        raise ConfigError(
            f"{world.size} ranks share the lines of a file, which each of them reads: name one, or start one process "
            f"for standard input, a pipe or --stream."
        )


def is_shared(file: str | None) -> bool:
    """Whether every process that opens a file reads all of it; of one that is not there, each says so."""
    return file is not None and file != "-" and (Path(file).is_file() or not Path(file).exists())


def _greet(given: Mapping[str, object]) -> None:
    """Tell a person at the terminal what is waited for. Raises ConfigError where nobody can type it."""
    if "stream" in given:
        raise ConfigError("--stream reads raw samples, which nobody types: pipe them into etude, or name a file.")
    say("Type a line; Ctrl-D ends.")


def write_out(answers: Iterable[str], out: TextIO) -> None:
    """Write each part of the answers as soon as it is there."""
    for text in answers:
        out.write(text)
        out.flush()


def asked_by(arguments: Namespace, given: Mapping[str, object], out: TextIO) -> Asked:
    """How the command line asks for predictions that are written to `out`."""
    terminal = is_terminal(out)
    return Asked(given, arguments.json, arguments.batch_size, terminal, printable if terminal else str)


def refuse_flags(taken: Sequence[Flag], given: Mapping[str, object], name: str) -> None:
    """Refuse what the task called `name` does not know. Raises ConfigError."""
    known = {flag.word for flag in taken}
    for flag in predict_flags():
        if flag.word in given and flag.word not in known and flag.refused:
            told = flag.refused.format(name=flag.name, type=name, value=given[flag.word])
            raise ConfigError(told)


def as_overrides(given: Mapping[str, object]) -> list[str]:
    """The flags that are short for a key of the config, as the words that would say it at length."""
    words: list[str] = []
    for flag in predict_flags():
        if flag.key and flag.word in given:
            words += [f"--{flag.key}", json.dumps(given[flag.word])]
    return words


def _shared(arguments: Namespace) -> dict[str, object]:
    """What every prediction may be asked with, as far as it is."""
    shared = {"file": arguments.file, "json": arguments.json}
    return {name: value for name, value in shared.items() if value}


class Input(Questions):
    """A binary stream of text in UTF-8, and what messages call it; what of it has no answer is said at once."""

    def __init__(self, stream: BinaryIO, name: str, *, unit: str = "line", path: Path | None = None) -> None:
        self._stream, self._name, self._unit, self._path = stream, name, unit, path
        self._flaws: dict[int, str] = {}
        self._unanswered = 0
        self._interrupted = False

    @property
    def path(self) -> Path | None:
        """The file that was named."""
        return self._path

    def lines(self) -> Iterator[list[str]]:
        """Its lines, in windows of what is there; an empty one in the place of one that is no text."""
        number = 0
        whole = self._path is not None and self._path.is_file()
        for window in Lines(self._stream, self._name, whole=whole).windows():
            self._flaws = {}
            yield [self._text(line, at) for at, line in enumerate(window, number)]
            number += len(window)

    def _text(self, line: str | Flaw, number: int) -> str:
        """A line that was read; nothing, and why is told, of one that is no text."""
        match line:
            case Flaw(reason=why):
                self._tell(number, why)
                self._flaws[number] = why
                return ""
        return line

    def beside(self, text: str) -> None:
        """Say it where messages are said."""
        say(text)

    def flaw(self, number: int) -> str | None:
        """Why a line of the newest window is no text; None where it is."""
        return self._flaws.get(number)

    def unanswered(self, number: int, why: str) -> None:
        """Say what has no answer, and why, unless it is a line that was told of when it was read."""
        if number not in self._flaws:
            self._tell(number, why)

    def _tell(self, number: int, why: str) -> None:
        """Say it; after many of them they are only counted."""
        self._unanswered += 1
        if self._unanswered <= TOLD:
            say(f"etude: {self._name}, {self._unit} {number + 1}: {why.removesuffix('.')}.")

    def code(self) -> int:
        """The code to end with; where more than one has no answer, it is said how many."""
        if self._unanswered > 1:
            more = f", of which the first {TOLD} are named above" if self._unanswered > TOLD else ""
            say(f"etude: {self._unanswered:,} {self._unit}s of {self._name} could not be answered{more}.")
        if self._interrupted:
            return INTERRUPTED
        return DataError.exit_code if self._unanswered else 0

    def pieces(self) -> Iterator[bytes]:
        """Its bytes as they come, until it or Ctrl-C ends them."""
        reading = Pieces(self._stream, self._name)
        yield from reading
        self._interrupted = reading.interrupted

    def note(self, text: str) -> None:
        """Say it."""
        say(f"etude: {self._name}: {text}")

    def whole(self) -> str:
        """All of it as one text."""
        content = self._stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise DataError(f"{self._name} is larger than {LARGEST >> 20} MiB, too large for a prompt.")
        if is_utf16(content):
            raise DataError(f"{self._name}: {UTF16}.")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{self._name} must be UTF-8, but holds the byte 0x{content[error.start]:02x}.") from None


def _questions(stream: BinaryIO, name: str, given: Mapping[str, object], file: str | None) -> Input:
    """What is asked: the prompts of the command line, or what the input holds."""
    if "prompt" in given:
        return Input(stream, "the command line", unit="prompt")
    return Input(stream, name, path=None if file in {None, "-"} else Path(str(file)))


@contextlib.contextmanager
def _input(file: str | None) -> Iterator[tuple[BinaryIO, str]]:
    """The bytes to read, and what messages call them."""
    if file is None or file == "-":
        yield _standard_input(), "standard input"
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open("rb"))
        except FileNotFoundError:
            raise DataError(f"{file} does not exist; give a file that does, or none to read standard input.") from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from None
        yield stream, file


def _standard_input() -> BinaryIO:
    """Standard input through a buffer of its own: the interpreter cannot end while another thread reads from its."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError):  # no file behind it
        return sys.stdin.buffer


@contextlib.contextmanager
def _output(file: str | None) -> Iterator[TextIO]:
    """Where to write: standard output, or what lies at a path; a regular file appears whole or not at all."""
    if file is None:
        with writing_stdout():
            yield sys.stdout
        return
    with named_file(Path(file)) as binary:
        out = io.TextIOWrapper(binary, encoding="utf-8", errors="surrogateescape", newline="\n")
        yield out
        out.flush()
        out.detach()  # whoever opened the file closes it
