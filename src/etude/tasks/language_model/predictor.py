"""Completes prompts, token by token on a terminal, and tells how likely given text is."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from etude.base.errors import ConfigError
from etude.tasks.language_model.task import Completion, LanguageModelTask, Scored
from etude.tasks.task_type import Asked, Predictor, Questions

BATCH_SIZE = 16
"""Prompts completed together unless the shell says otherwise."""
BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Where a reader may see the end of a line."""
TOGETHER = {
    ("prompt", "file"): "--prompt takes the place of an input: leave out FILE, or --prompt",
    ("prompt", "whole"): "--prompt takes the place of an input, of which --whole is a form: leave one of them out",
    ("score", "samples"): "--score tells how likely text is and completes nothing: leave out --samples",
    ("score", "raw"): "--score tells how likely text is and completes nothing: leave out --raw",
    ("json", "raw"): "--json and --raw are two forms of output: leave one of them out",
}
"""Flags that contradict each other, and what to do."""


def check_together(given: Mapping[str, object]) -> None:
    """Refuse flags that would be without effect. Raises ConfigError."""
    if "n_best" in given:
        raise ConfigError(f"--n-best is for translations; a language model takes --samples {given['n_best']}.")
    for pair, told in TOGETHER.items():
        if given.keys() >= set(pair):
            raise ConfigError(f"{told}.")


@final
class Completions(Predictor):
    """What may follow each prompt."""

    def __init__(self, task: LanguageModelTask) -> None:
        self._task = task

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """The completions of every prompt, or how likely it is, as the flags say."""
        prompts = _prompts(questions, asked)
        if asked.flags.get("score"):
            return self._scores(prompts, asked)
        if asked.terminal and not asked.json and self._task.config.samples == 1:
            return self._streamed(prompts, asked)
        return self._written(prompts, asked)

    def best(self, texts: Iterable[str]) -> Iterator[str]:
        """The first completion of each prompt."""
        return (found[0].text for found in self._task.predict(texts))

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Any]:
        """Nothing: completions have no best. Raises ConfigError."""
        del texts, options
        raise ConfigError(f"{type(self._task).__name__} does not predict from text; use its predict_step.")

    def _written(self, prompts: Iterator[list[str]], asked: Asked) -> Iterator[str]:
        size, number = asked.batch_size or BATCH_SIZE, 0
        shape = _form(asked)
        for window in prompts:
            for prompt, found in zip(window, self._task.predict(window, batch_size=size, first=number), strict=True):
                yield shape(prompt, found)
            number += len(window)

    def _streamed(self, prompts: Iterator[list[str]], asked: Asked) -> Iterator[str]:
        """Each completion behind its prompt, token by token; a blank line parts them."""
        number = 0
        for window in prompts:
            for prompt in window:
                yield asked.safe(prompt)
                for piece in self._task.stream(prompt, number=number):
                    yield asked.safe(piece.text)
                yield "\n\n"
                number += 1

    def _scores(self, prompts: Iterator[list[str]], asked: Asked) -> Iterator[str]:
        """How likely each text is: its log-probability in nats, bits a byte, and the text."""
        for window in prompts:
            for text, scored in zip(window, self._task.score(window), strict=True):
                bits = -scored.log_probability / math.log(2) / max(scored.bytes, 1)
                if asked.json:
                    yield _line(_scored(text, scored, bits))
                else:
                    yield f"{scored.log_probability:.6f}\t{bits:.6f}\t{asked.safe(on_one_line(text))}\n"


def _prompts(questions: Questions, asked: Asked) -> Iterator[list[str]]:
    """The prompts in windows of what is there: those of the command line, the whole input as one, or its lines."""
    match asked.flags:
        case {"prompt": list() as given}:
            yield list(given)
        case {"whole": True}:
            yield [questions.whole()]
        case _:
            yield from questions.lines()


def _form(asked: Asked) -> Callable[[str, Sequence[Completion]], str]:
    """How one prompt's completions are written: an object, or a line each."""
    if asked.json:
        return lambda prompt, found: _line(_completed(prompt, found))
    raw = bool(asked.flags.get("raw"))
    write: Callable[[str], str] = str if raw else on_one_line
    ending = "\n\n" if raw else "\n"
    return lambda _, found: "".join(f"{asked.safe(write(one.text))}{ending}" for one in found)


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _completed(prompt: str, found: Sequence[Completion]) -> dict[str, object]:
    completions = [
        {"text": one.text, "log_probability": one.log_probability, "tokens": one.tokens, "end": one.end}
        for one in found
    ]
    return {"prompt": prompt, "prediction": found[0].text, "predictions": completions}


def _scored(text: str, scored: Scored, bits: float) -> dict[str, object]:
    return {
        "text": text,
        "log_probability": scored.log_probability,
        "bits_per_byte": bits,
        "tokens": [{"text": token, "log_probability": value} for token, value in scored.tokens],
    }


def on_one_line(text: str) -> str:
    r"""The text on one line: backslashes doubled, line breaks of any kind written as `\n`, `\r`, `\u2028`.

    >>> print(on_one_line("a\nb"))
    a\nb
    """
    return BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text.replace("\\", "\\\\"))
