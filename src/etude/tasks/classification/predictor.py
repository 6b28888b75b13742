"""Classifies lines: what `etude predict` and `Run.predict` ask of a classification."""

import json
from collections.abc import Iterator, Sequence
from typing import final

from torch import Tensor

from etude.metrics.text import one_line
from etude.tasks.answers import Answering
from etude.tasks.best_lines import BATCH_SIZE, BestLines
from etude.tasks.classification.task import ClassificationTask, Classified
from etude.tasks.task_type import Asked, Missing, Questions


@final
class Labels(BestLines):
    """The label of each line; as an object, with the scores of all labels."""

    def __init__(self, task: ClassificationTask) -> None:
        super().__init__(task)
        self._task = task

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """A line for each line; objects on request."""
        size = asked.batch_size or BATCH_SIZE
        answering = Answering[list[Classified]](
            lambda lines, _: self._task.predict(lines, batch_size=size, window=len(lines))
        )
        for _, line, found in answering.questions(questions, questions.lines()):
            yield f"{_object(line, found) if asked.json else asked.safe(_label(found))}\n"

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The label predicted for each sample."""
        match outputs:
            case Tensor():
                return self._task.predicted(outputs)
        return None


def _label(found: Sequence[Classified] | Missing) -> str:
    match found:
        case [one]:
            return one_line(one.text)
    return ""


def _object(line: str, found: Sequence[Classified] | Missing) -> str:
    match found:
        case Missing(error=why):
            told: dict[str, object] = {"source": line, "prediction": None, "error": why}
        case [one, *_]:
            told = {"source": line, "prediction": one.text, "score": one.score, "scores": dict(one.scores)}
    return json.dumps(told, ensure_ascii=False)
