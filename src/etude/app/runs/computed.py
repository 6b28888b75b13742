"""Predictions computed in a precision, one after the other as they are asked for."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, final

from etude.tasks.attention import Attention
from etude.tasks.task_type import Asked, Missing, Predictor, Questions
from etude.train.step.precision import Precision
from etude.train.world import World

T = TypeVar("T")


@final
class Computed(Predictor):
    """A predictor that computes in `precision`; nothing else does meanwhile."""

    def __init__(self, predictor: Predictor, precision: Precision) -> None:
        self._predictor = predictor
        self.precision = precision

    def among(self, world: World) -> None:
        """Share what is asked with the other ranks of `world`."""
        self._predictor.among(world)

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """What is written, line ends and all."""
        with self.precision.forward():
            found = self._predictor.answers(questions, asked)
        return self._each(found)

    def best(self, texts: Iterable[str]) -> Iterator[str | Missing]:
        """The best prediction of each text."""
        with self.precision.forward():
            found = self._predictor.best(texts)
        return self._each(found)

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Any]:
        """For each text its predictions with their scores."""
        with self.precision.forward():
            found = self._predictor.candidates(texts, **options)
        return self._each(found)

    def attention(self, text: str) -> Attention:
        """What the best prediction of a text looks at in it."""
        with self.precision.forward():
            return self._predictor.attention(text)

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The best prediction of each sample of a tested batch."""
        return self._predictor.tested(outputs)

    def _each(self, found: Iterable[T]) -> Iterator[T]:
        """What is found, each computed inside the precision's context and handed over outside of it."""
        rest = iter(found)
        while True:
            try:
                with self.precision.forward():
                    one = next(rest)
            except StopIteration:
                return
            yield one
