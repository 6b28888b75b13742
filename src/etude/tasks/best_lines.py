"""Lines in, the best predictions of each out: what tasks share that search with a beam."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from etude.base.errors import ConfigError
from etude.metrics.text import one_line
from etude.tasks.answers import Answering
from etude.tasks.sharing import Ask, Places, shared
from etude.tasks.task_type import Asked, Missing, Predictor, Questions
from etude.train.world import ALONE, World

A = TypeVar("A")
BATCH_SIZE = 32
"""Lines computed together unless the shell says otherwise."""
WINDOW = 1024
"""Texts from Python that are read ahead unless `window` says otherwise."""


class Candidate(Protocol):
    """One prediction of a text."""

    @property
    def text(self) -> str:
        """What is predicted."""

    @property
    def score(self) -> float:
        """What the predictions of a text are ranked by; higher is better."""


Seen = Callable[[str, Sequence[Candidate], Asked], object]
Asking = Answering[Sequence[Candidate]]
Form = Callable[[int, str, Sequence[Candidate]], str]


class BestLines(Predictor):
    """Answers each line with the best of what `task.predict(lines, batch_size, window)` finds, or with several.

    `seen` is told of each line that is answered: itself, what was found, and how it was asked for.
    """

    def __init__(
        self, task: object, widen: Callable[[int], object] = lambda _: None, seen: Seen = lambda *_: None
    ) -> None:
        self._name = type(task).__name__
        self._predict: Callable[..., Iterator[Sequence[Candidate]]] | None = getattr(task, "predict", None)
        self._together: Callable[..., Sequence[Places]] = getattr(task, "together", _unknown)
        self._widen = widen
        self._seen = seen
        self._world: World = ALONE

    def among(self, world: World) -> None:
        """Share lines with other ranks: the batches that the task tells of by `together(lines, batch_size=...)`."""
        self._world = world

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """A line for each line or, of several best, one for each of them; objects on request."""
        predict = self._known("does not predict from lines; use its predict_step from Python.")
        count = asked.flags.get("n_best", 1)
        assert isinstance(count, int)
        self._widen(count)
        size = asked.batch_size or BATCH_SIZE
        answering = Asking(self.sharing(lambda lines: predict(lines, batch_size=size, window=len(lines)), size))
        shape = _form(count, asked)
        for number, line, found in answering.questions(questions, asked_windows(questions, asked)):
            self._seen(line, _listed(found), asked)
            yield shape(number + 1, line, _listed(found))

    def best(self, texts: Iterable[str]) -> Iterator[str | Missing]:
        """The best prediction of each text, in order, and why one has none."""
        for found in self.candidates(texts):
            match found[0]:
                case Missing() as none:
                    yield none
                case first:
                    yield first.text

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Sequence[Candidate]]:
        """For each text its predictions with their scores, best first; of one without any, why, as the only one."""
        predict = self._known("does not predict from text; use its predict_step.")
        answering = Asking(self.sharing(lambda lines: predict(lines, **options), options.get("batch_size")))
        return map(_listed, answering.texts(texts, options.get("window", WINDOW)))

    def sharing(self, answer: Callable[[Sequence[str]], Iterable[A]], batch_size: int | None) -> Ask[A]:
        """Answers lines in batches of a size, that of the task's `predict` unless given, as one of the ranks."""
        size = {} if batch_size is None else {"batch_size": batch_size}
        return shared(lambda lines, _: answer(lines), self._world, lambda lines: self._together(lines, **size))

    def _known(self, otherwise: str) -> Callable[..., Iterator[Sequence[Candidate]]]:
        if not callable(self._predict):
            raise ConfigError(f"{self._name} {otherwise}")
        return self._predict


def _unknown(lines: Sequence[str], **_: int) -> list[Places]:
    """All lines: a task that does not tell may compute any of them together."""
    return [range(len(lines))]


def asked_windows(questions: Questions, asked: Asked) -> Iterator[list[str]]:
    """What is asked, in windows of what is there: the prompts of the command line, or the lines of the input."""
    match asked.flags:
        case {"prompt": list() as given}:
            yield [str(prompt) for prompt in given]
        case _:
            yield from questions.lines()


def check_best(given: Mapping[str, object]) -> None:
    """Refuse a number of predictions that no beam gives. Raises ConfigError."""
    count, width = given.get("n_best", 1), given.get("beam_size")
    assert isinstance(count, int)
    if count < 1:
        raise ConfigError(f"--n-best must be at least 1, but is {count}.")
    if isinstance(width, int) and width < count:
        raise ConfigError(f"--n-best must be at most --beam-size, which is {width}, but is {count}.")


def _listed(found: Sequence[Candidate] | Missing) -> Sequence[Candidate]:
    """What was found for a text; where that is nothing, why, as the only one."""
    match found:
        case Missing():
            return [found]
    return found


def _form(count: int, asked: Asked) -> Form:
    """How a prediction is written: an object, the best text, or several texts with their number and score."""
    if asked.json:
        return lambda _, line, found: f"{json.dumps(_object(line, found, count), ensure_ascii=False)}\n"
    safe = asked.safe
    if count == 1:
        return lambda _, __, found: f"{safe(one_line(found[0].text))}\n"
    return lambda number, _, found: "".join(
        f"{number}\t{one.score:.6f}\t{safe(one_line(one.text))}\n" for one in found[:count]
    )


def _object(source: str, found: Sequence[Candidate], count: int) -> Mapping[str, object]:
    match found:
        case [Missing(error=why)]:
            return {"source": source, "prediction": None, "error": why}
    return {
        "source": source,
        "prediction": found[0].text,
        "score": found[0].score,
        "predictions": [{"text": one.text, "score": one.score} for one in found[:count]],
    }
