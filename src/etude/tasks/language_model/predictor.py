"""Completes prompts, token by token on a terminal, and tells how likely given text is."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from etude.base.errors import ConfigError, DataError
from etude.tasks.answers import Answering, readable, reason, tell_missing
from etude.tasks.language_model.task import Completion, LanguageModelTask, Scored
from etude.tasks.task_type import Asked, Missing, Predictor, Questions

Windows = Iterator[list[str]]
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
            return self._scores(prompts, asked, questions)
        if asked.terminal and not asked.json and self._task.config.samples == 1:
            return self._streamed(prompts, asked, questions)
        return self._written(prompts, asked, questions)

    def best(self, texts: Iterable[str]) -> Iterator[str | Missing]:
        """The first completion of each prompt, and why one has none."""
        for found in self._completing(BATCH_SIZE).texts(texts, BATCH_SIZE):
            match found:
                case Missing():
                    yield found
                case [first, *_]:
                    yield first.text

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Any]:
        """Nothing: completions have no best. Raises ConfigError."""
        del texts, options
        raise ConfigError(f"{type(self._task).__name__} does not predict from text; use its predict_step.")

    def _completing(self, size: int) -> Answering[Sequence[Completion]]:
        return Answering(lambda prompts, first: self._task.predict(prompts, batch_size=size, first=first))

    def _written(self, prompts: Windows, asked: Asked, questions: Questions) -> Iterator[str]:
        answering, shape = self._completing(asked.batch_size or BATCH_SIZE), _form(asked)
        none = _ending(asked) * self._task.config.samples
        for _, prompt, found in answering.questions(questions, prompts):
            match found:
                case Missing() as missing:
                    yield _line(_without("prompt", prompt, missing)) if asked.json else none
                case several:
                    yield shape(prompt, several)

    def _streamed(self, prompts: Windows, asked: Asked, questions: Questions) -> Iterator[str]:
        """Each completion behind its prompt, token by token; a blank line parts them."""
        number = 0
        for window in prompts:
            for prompt in readable(questions, window, number):
                yield from self._shown(prompt, number, asked, questions)
                yield "\n\n"
                number += 1

    def _shown(self, prompt: str | Missing, number: int, asked: Asked, questions: Questions) -> Iterator[str]:
        """A prompt and its completion; nothing behind the prompt from where it cannot be completed."""
        match prompt:
            case Missing():
                tell_missing(questions, number, prompt)
            case text:
                yield asked.safe(text)
                try:
                    for piece in self._task.stream(text, number=number):
                        yield asked.safe(piece.text)
                except DataError as error:
                    questions.unanswered(number, reason(error))

    def _scores(self, prompts: Windows, asked: Asked, questions: Questions) -> Iterator[str]:
        """How likely each text is: its log-probability in nats, bits a byte, and the text."""
        answering = Answering(lambda texts, _: self._task.score(texts))
        for _, text, scored in answering.questions(questions, prompts):
            match scored:
                case Missing() as missing:
                    yield _line(_without("text", text, missing)) if asked.json else "\n"
                case known:
                    yield _score_line(text, known, asked)


def _prompts(questions: Questions, asked: Asked) -> Iterator[list[str]]:
    """The prompts in windows of what is there: those of the command line, the whole input as one, or its lines."""
    match asked.flags:
        case {"prompt": list() as given}:
            yield list(given)
        case {"whole": True}:
            yield [questions.whole()]
        case _:
            yield from questions.lines()


def _ending(asked: Asked) -> str:
    """What ends a completion."""
    return "\n\n" if asked.flags.get("raw") else "\n"


def _form(asked: Asked) -> Callable[[str, Sequence[Completion]], str]:
    """How one prompt's completions are written: an object, or a line each."""
    if asked.json:
        return lambda prompt, found: _line(_completed(prompt, found))
    write: Callable[[str], str] = str if asked.flags.get("raw") else on_one_line
    ending = _ending(asked)
    return lambda _, found: "".join(f"{asked.safe(write(one.text))}{ending}" for one in found)


def _line(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _completed(prompt: str, found: Sequence[Completion]) -> dict[str, object]:
    completions = [
        {"text": one.text, "log_probability": one.log_probability, "tokens": one.tokens, "end": one.end}
        for one in found
    ]
    return {"prompt": prompt, "prediction": found[0].text, "predictions": completions}


def _without(name: str, text: str, missing: Missing) -> dict[str, object]:
    """What is written of a text, under its name, that has no answer."""
    return {name: text, "prediction": None, "error": missing.error}


def _score_line(text: str, scored: Scored, asked: Asked) -> str:
    bits = -scored.log_probability / math.log(2) / max(scored.bytes, 1)
    if asked.json:
        return _line(_scored(text, scored, bits))
    return f"{scored.log_probability:.6f}\t{bits:.6f}\t{asked.safe(on_one_line(text))}\n"


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
