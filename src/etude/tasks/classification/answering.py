"""Answers lines: what `etude predict` and `Run.predict` ask of a classification."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

from torch import Tensor

from etude.metrics.text import one_line
from etude.tasks.answers import Answering
from etude.tasks.best_lines import BATCH_SIZE, BestLines
from etude.tasks.classification.goals.goal import Answer
from etude.tasks.classification.task import ClassificationTask, Reader
from etude.tasks.task_type import Asked, Missing, Questions


@final
class Labels(BestLines):
    """The label of each line; as an object, with the scores of all labels."""

    def __init__(self, task: ClassificationTask) -> None:
        super().__init__(task)
        self._task = task

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """A line for each line but one of names; objects on request."""
        size = asked.batch_size or BATCH_SIZE
        answering = Answering(
            self.sharing(lambda lines: self._task.predict(lines, batch_size=size, window=len(lines)), size)
        )
        begun = _Begun(self._task.reader)
        for number, line, found in answering.questions(questions, begun.windows(questions)):
            if number or not begun.has_names:
                yield f"{_object(line, found) if asked.json else asked.safe(_label(found))}\n"

    def candidates(self, texts: Iterable[Any], **options: int) -> Iterator[Sequence[Any]]:
        """For each sample what is predicted, as the only prediction."""
        reader = self._task.reader
        if reader is None:
            return super().candidates(texts, **options)
        reader.begins("{}")
        return super().candidates(map(reader.line_of, texts), **options)

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The label predicted for each sample."""
        match outputs:
            case Tensor():
                return self._task.predicted(outputs)
        return None

    def references(self, batch: object) -> Sequence[str] | None:
        """The labels or numbers of each sample."""
        match batch:
            case object(targets=Tensor() as targets):
                return self._task.goal.texts(targets)
        return None


@final
class _Begun:
    """The windows of an input, of which the first line may say what the others hold; an empty one stands for it."""

    def __init__(self, reader: Reader | None) -> None:
        self._reader = reader
        self.has_names = False

    def windows(self, questions: Questions) -> Iterator[list[str]]:
        """Lines, in windows of what is there."""
        if self._reader is None:
            yield from questions.lines()
            return
        is_first = True
        for window in self._reader.windows(questions):
            if is_first and window:
                is_first = False
                self.has_names = self._reader.begins(window[0])
                yield ["", *window[1:]] if self.has_names else window
            else:
                yield window


def _label(found: Sequence[Answer] | Missing) -> str:
    match found:
        case [one]:
            return one_line(one.text)
    return ""


def _scores(found: Answer) -> dict[str, object]:
    """The probability of what is predicted, and those of all labels; nothing of numbers."""
    return {} if math.isnan(found.score) and not found.scores else {"score": found.score, "scores": dict(found.scores)}


def _object(line: str, found: Sequence[Answer] | Missing) -> str:
    match found:
        case Missing(error=why):
            told: dict[str, object] = {"source": line, "prediction": None, "error": why}
        case [one, *_]:
            told = {"source": line, "prediction": one.value, **_scores(one)}
    return json.dumps(told, ensure_ascii=False)
