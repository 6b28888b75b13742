"""Answers to many inputs, of which one that has none costs no other its own."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar, final

from etude.base.errors import DataError
from etude.tasks.sharing import NOT_OF_ONE, Ask
from etude.tasks.task_type import Missing, Questions

A = TypeVar("A")


@final
class Answering(Generic[A]):
    """Asks for the answers to inputs, a window of them after the other, and tells which have none.

    Where asking for several fails, their halves are asked for: so the one that has no answer is found, and the others
    get theirs. Inputs keep their numbers, from 0 on.
    """

    def __init__(self, ask: Ask[A]) -> None:
        self._ask = ask
        self._number = 0
        self._answered = 0
        self._failed: Exception | None = None

    def window(self, inputs: Sequence[str | Missing]) -> Iterator[A | Missing]:
        """Answer the next inputs in order, each as soon as that can be."""
        texts: list[str] = []
        for one in inputs:
            match one:
                case Missing():
                    yield from self._following(texts)
                    self._number += 1
                    texts = []
                    yield one
                case text:
                    texts.append(text)
        yield from self._following(texts)

    def questions(
        self, questions: Questions, windows: Iterable[Sequence[str]]
    ) -> Iterator[tuple[int, str, A | Missing]]:
        """Answer texts that were asked in windows: the number of each, itself and its answer.

        Who asks is told of one that has none.
        """
        number = 0
        for window in windows:
            answers = self.window(readable(questions, window, number))
            for text, answer in zip(window, answers, strict=True):
                tell_missing(questions, number, answer)
                yield number, text, answer
                number += 1
        self.end()

    def texts(self, texts: Iterable[object], window: int) -> Iterator[A | Missing]:
        """Answer texts from Python as they come, `window` of which are read ahead."""
        given = map(_checked, texts)
        while block := list(islice(given, window)):
            yield from self.window(block)
        self.end()

    def end(self) -> None:
        """Raise what went wrong where no input has an answer and none is to blame: then it is the code."""
        if self._failed is not None and not self._answered and not isinstance(self._failed, DataError):
            raise self._failed

    def _following(self, texts: list[str]) -> Iterator[A | Missing]:
        first = self._number
        self._number += len(texts)
        if texts:
            yield from self._answers(texts, first)

    def _answers(self, texts: list[str], first: int) -> Iterator[A | Missing]:
        done = 0
        try:
            for answer in self._ask(texts, first):
                yield answer
                done += 1
                self._answered += 1
        except NOT_OF_ONE:
            raise
        except Exception as error:  # noqa: BLE001 - a model of the user's own may raise anything
            yield from self._halves(texts[done:], first + done, error)
            return
        if done != len(texts):
            raise ValueError(f"{len(texts)} inputs were given {done} answers.")

    def _halves(self, texts: list[str], first: int, error: Exception) -> Iterator[A | Missing]:
        """Answer each half of texts that could not be answered together."""
        if len(texts) < 2:  # noqa: PLR2004 - one has no halves
            self._failed = error
            yield from (Missing(reason(error)) for _ in texts)
            return
        half = len(texts) // 2
        yield from self._answers(texts[:half], first)
        yield from self._answers(texts[half:], first + half)


def reason(error: Exception) -> str:
    """Why an input has no answer, on one line; what Etude did not raise under the name of its kind."""
    said = " ".join(str(error).split())
    return said if isinstance(error, DataError) else f"{type(error).__name__}: {said or 'no message'}"


def readable(questions: Questions, window: Sequence[str], first: int) -> list[str | Missing]:
    """The texts of a window whose first has the number `first`, and why one of them could not be read."""
    flaws = (questions.flaw(number) for number in range(first, first + len(window)))
    return [text if flaw is None else Missing(flaw) for text, flaw in zip(window, flaws, strict=True)]


def tell_missing(questions: Questions, number: int, answer: object) -> None:
    """Tell who asks where the text of this number has no answer."""
    match answer:
        case Missing(error=why):
            questions.unanswered(number, why)


def _checked(text: object) -> str | Missing:
    """A text from Python, or why it is none."""
    match text:
        case str():
            return text
    return Missing(f"it must be a string, but is a {type(text).__name__}.")
