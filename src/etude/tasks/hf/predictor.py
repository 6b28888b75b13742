"""Answers lines or prompts by a model of the transformers library, or tells how likely given text is."""

from collections.abc import Iterable, Iterator
from typing import Any, final

from etude.tasks.answers import Answering
from etude.tasks.best_lines import BestLines, asked_windows
from etude.tasks.hf.task import HfTask
from etude.tasks.sharing import one_by_one, shared
from etude.tasks.task_type import Asked, Missing, Predictor, Questions
from etude.tasks.written import score_line, unscored_line
from etude.train.world import ALONE, World


@final
class HfAnswers(Predictor):
    """The best completions of each prompt, or its score."""

    def __init__(self, task: HfTask) -> None:
        self._task = task
        self._lines = BestLines(task, widen=task.widen)
        self._world: World = ALONE

    def among(self, world: World) -> None:
        """Share what is asked with other ranks."""
        self._world = world
        self._lines.among(world)

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """What the flags ask for."""
        if asked.flags.get("score"):
            return self._scores(questions, asked)
        return self._lines.answers(questions, asked)

    def best(self, texts: Iterable[str]) -> Iterator[str | Missing]:
        """The best completion of each prompt, and why one has none."""
        return self._lines.best(texts)

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Any]:
        """For each prompt its completions with their scores, best first."""
        return self._lines.candidates(texts, **options)

    def _scores(self, questions: Questions, asked: Asked) -> Iterator[str]:
        answering = Answering(shared(lambda texts, _: self._task.score(texts), self._world, one_by_one, in_steps=True))
        for _, text, found in answering.questions(questions, asked_windows(questions, asked)):
            match found:
                case Missing() as missing:
                    yield unscored_line(text, missing, asked)
                case known:
                    yield score_line(text, known, asked)
