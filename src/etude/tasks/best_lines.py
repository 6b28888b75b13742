"""Lines in, the best predictions of each out: what tasks share that search with a beam."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from etude.base.errors import ConfigError
from etude.tasks.task_type import Asked, Predictor, Questions

BATCH_SIZE = 32
"""Lines computed together unless the shell says otherwise."""


class Candidate(Protocol):
    """One prediction of a text."""

    @property
    def text(self) -> str:
        """What is predicted."""

    @property
    def score(self) -> float:
        """What the predictions of a text are ranked by; higher is better."""


class BestLines(Predictor):
    """Answers each line with the best of what `task.predict(lines, batch_size, window)` finds, or with several."""

    def __init__(self, task: object, widen: Callable[[int], object] = lambda _: None) -> None:
        self._name = type(task).__name__
        self._predict: Callable[..., Iterator[Sequence[Candidate]]] | None = getattr(task, "predict", None)
        self._widen = widen

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """A line for each line or, of several best, one for each of them; objects on request."""
        predict = self._known("does not predict from lines; use its predict_step from Python.")
        count = asked.flags.get("n_best", 1)
        assert isinstance(count, int)
        self._widen(count)
        shape = _form(count, asked)
        number = 0
        for window in questions.lines():
            found = predict(window, batch_size=asked.batch_size or BATCH_SIZE, window=len(window))
            for line, candidates in zip(window, found, strict=True):
                number += 1
                yield shape(number, line, candidates)

    def best(self, texts: Iterable[str]) -> Iterator[str]:
        """The best prediction of each text, in order."""
        return (found[0].text for found in self.candidates(texts))

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Sequence[Candidate]]:
        """For each text its predictions with their scores, best first."""
        return self._known("does not predict from text; use its predict_step.")(texts, **options)

    def _known(self, otherwise: str) -> Callable[..., Iterator[Sequence[Candidate]]]:
        if not callable(self._predict):
            raise ConfigError(f"{self._name} {otherwise}")
        return self._predict


def check_best(given: Mapping[str, object]) -> None:
    """Refuse a number of predictions that no beam gives. Raises ConfigError."""
    count, width = given.get("n_best", 1), given.get("beam_size")
    assert isinstance(count, int)
    if count < 1:
        raise ConfigError(f"--n-best must be at least 1, but is {count}.")
    if isinstance(width, int) and width < count:
        raise ConfigError(f"--n-best must be at most --beam-size, which is {width}, but is {count}.")


def _form(count: int, asked: Asked) -> Callable[[int, str, Sequence[Candidate]], str]:
    """How a prediction is written: an object, the best text, or several texts with their number and score."""
    if asked.json:
        return lambda _, line, found: f"{_object(line, found[:count])}\n"
    safe = asked.safe
    if count == 1:
        return lambda _, __, found: f"{safe(one_line(found[0].text))}\n"
    return lambda number, _, found: "".join(
        f"{number}\t{one.score:.6f}\t{safe(one_line(one.text))}\n" for one in found[:count]
    )


def one_line(text: str) -> str:
    """The text without line breaks, which would shift the lines behind it."""
    return text.replace("\r", " ").replace("\n", " ")


def _object(source: str, found: Sequence[Candidate]) -> str:
    return json.dumps(
        {
            "source": source,
            "prediction": found[0].text,
            "score": found[0].score,
            "predictions": [{"text": one.text, "score": one.score} for one in found],
        },
        ensure_ascii=False,
    )
