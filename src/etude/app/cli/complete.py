"""`etude predict` of a language model: prompts in, completions out; and how likely given text is."""

import json
import math
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import starmap
from typing import Any, BinaryIO, TextIO

from etude.app.cli.lines import Lines
from etude.app.cli.streams import escaped, is_terminal, printable
from etude.base.errors import DataError
from etude.tasks.language_model.task import Completion, LanguageModelTask, Scored

BATCH_SIZE = 16
"""Prompts completed together unless `--batch-size` says otherwise."""
BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Where a reader may see the end of a line."""
LARGEST = 1 << 28
"""Bytes of an input that is one prompt."""


def complete(task: LanguageModelTask, arguments: Namespace, source: tuple[BinaryIO, str], out: TextIO) -> None:
    """Complete every prompt of the input, or score it, as the arguments say."""
    if arguments.score:
        _score(task, arguments, source, out)
    elif is_terminal(out) and not arguments.json and task.config.samples == 1:
        _stream(task, _prompts(arguments, source), out)
    else:
        _complete(task, arguments, source, out)


def _complete(task: LanguageModelTask, arguments: Namespace, source: tuple[BinaryIO, str], out: TextIO) -> None:
    """Write the completions of every prompt, a window of prompts at a time."""
    size, safe = arguments.batch_size or BATCH_SIZE, _safe(out)
    number = 0
    for window in _prompts(arguments, source):
        answers = zip(window, task.predict(window, batch_size=size, first=number), strict=True)
        out.writelines(_shown(prompt, found, arguments, safe) for prompt, found in answers)
        number += len(window)
        out.flush()


def _prompts(arguments: Namespace, source: tuple[BinaryIO, str]) -> Iterator[list[str]]:
    """The prompts in windows of what is there: those of the command line, the whole input as one, or its lines."""
    if arguments.prompt is not None:
        yield list(arguments.prompt)
    elif arguments.whole:
        yield [_whole(*source)]
    else:
        yield from Lines(*source).windows()


def _whole(stream: BinaryIO, name: str) -> str:
    content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(f"{name} is larger than {LARGEST >> 20} MiB, which is no prompt.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} must be UTF-8, but holds the byte 0x{content[error.start]:02x}.") from None


def _stream(task: LanguageModelTask, windows: Iterator[Sequence[str]], out: TextIO) -> None:
    """Write each completion behind its prompt, token by token; a blank line parts them."""
    number = 0
    for window in windows:
        for prompt in window:
            out.write(printable(prompt))
            for piece in task.stream(prompt, number=number):
                out.write(printable(piece.text))
                out.flush()
            out.write("\n\n")
            out.flush()
            number += 1


def _safe(out: TextIO) -> Callable[[str], str]:
    """What text goes through on its way out: a terminal would obey its control characters."""
    return printable if is_terminal(out) else str


def _shown(prompt: str, found: Sequence[Completion], arguments: Namespace, safe: Callable[[str], str]) -> str:
    """One prompt's completions as they are written: an object, or a line each."""
    if arguments.json:
        return json.dumps(_object(prompt, found), ensure_ascii=False) + "\n"
    write: Callable[[str], str] = str if arguments.raw else escaped_line
    ending = "\n\n" if arguments.raw else "\n"
    return "".join(f"{safe(write(one.text))}{ending}" for one in found)


def _object(prompt: str, found: Sequence[Completion]) -> dict[str, Any]:
    completions = [
        {"text": one.text, "log_probability": one.log_probability, "tokens": one.tokens, "end": one.end}
        for one in found
    ]
    return {"prompt": prompt, "prediction": found[0].text, "predictions": completions}


def escaped_line(text: str) -> str:
    r"""The text on one line: backslashes doubled, line breaks of any kind written as `\n`, `\r`, `\u2028`.

    >>> print(escaped_line("a\nb"))
    a\nb
    """
    return BREAKS.sub(lambda found: escaped(found[0]), text.replace("\\", "\\\\"))


def _score(task: LanguageModelTask, arguments: Namespace, source: tuple[BinaryIO, str], out: TextIO) -> None:
    """Write how likely each text is: its log-probability in nats, bits a byte, and the text."""
    write = _scored_as_json if arguments.json else partial(_scored, _safe(out))
    for window in _prompts(arguments, source):
        out.writelines(starmap(write, zip(window, task.score(window), strict=True)))
        out.flush()


def _scored(safe: Callable[[str], str], text: str, scored: Scored) -> str:
    return f"{scored.log_probability:.6f}\t{_bits_per_byte(scored):.6f}\t{safe(escaped_line(text))}\n"


def _scored_as_json(text: str, scored: Scored) -> str:
    told = {
        "text": text,
        "log_probability": scored.log_probability,
        "bits_per_byte": _bits_per_byte(scored),
        "tokens": [{"text": token, "log_probability": value} for token, value in scored.tokens],
    }
    return json.dumps(told, ensure_ascii=False) + "\n"


def _bits_per_byte(scored: Scored) -> float:
    return -scored.log_probability / math.log(2) / max(scored.bytes, 1)
