"""Completes prompts, token by token on a terminal, and tells how likely given text is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from etude.base.errors import ConfigError, DataError
from etude.tasks.answers import Answering, readable, reason, tell_missing
from etude.tasks.flags import PROMPT_OR_FILE, refuse_together
from etude.tasks.language_model.task import Completion, LanguageModelTask, Scored
from etude.tasks.sharing import Places, consecutive, one_by_one, shared
from etude.tasks.task_type import Asked, Missing, Predictor, Questions
from etude.tasks.written import object_line, on_one_line, score_line, unscored_line, without
from etude.train.world import ALONE, World

Windows = Iterator[list[str]]
BATCH_SIZE = 16
"""Prompts completed together unless the shell says otherwise."""
TOGETHER = PROMPT_OR_FILE | {
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
    refuse_together(given, TOGETHER)


@final
class Completions(Predictor):
    """What may follow each prompt."""

    def __init__(self, task: LanguageModelTask) -> None:
        self._task = task
        self._world: World = ALONE

    def among(self, world: World) -> None:
        """Share prompts with other ranks."""
        self._world = world

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
        for found in self._completing(BATCH_SIZE).texts(texts, BATCH_SIZE * self._world.size):
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
        def complete(prompts: Sequence[str], first: int) -> Iterator[Sequence[Completion]]:
            return self._task.predict(prompts, batch_size=size, first=first)

        def together(prompts: Sequence[str]) -> list[Places]:
            return consecutive(range(len(prompts)), size)

        return Answering(shared(complete, self._world, together, in_steps=True))

    def _written(self, prompts: Windows, asked: Asked, questions: Questions) -> Iterator[str]:
        answering, shape = self._completing(asked.batch_size or BATCH_SIZE), _form(asked)
        none = _ending(asked) * self._task.config.samples
        for _, prompt, found in answering.questions(questions, prompts):
            match found:
                case Missing() as missing:
                    yield object_line(without("prompt", prompt, missing)) if asked.json else none
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
        answering = Answering(shared(lambda texts, _: self._task.score(texts), self._world, one_by_one, in_steps=True))
        for _, text, scored in answering.questions(questions, prompts):
            match scored:
                case Missing() as missing:
                    yield unscored_line(text, missing, asked)
                case known:
                    yield score_line(text, known.log_probability, asked, tokens=_tokens(known))


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
        return lambda prompt, found: object_line(_completed(prompt, found))
    write: Callable[[str], str] = str if asked.flags.get("raw") else on_one_line
    ending = _ending(asked)
    return lambda _, found: "".join(f"{asked.safe(write(one.text))}{ending}" for one in found)


def _completed(prompt: str, found: Sequence[Completion]) -> dict[str, object]:
    completions = [
        {"text": one.text, "log_probability": one.log_probability, "tokens": one.tokens, "end": one.end}
        for one in found
    ]
    return {"prompt": prompt, "prediction": found[0].text, "predictions": completions}


def _tokens(scored: Scored) -> list[dict[str, object]]:
    return [{"text": token, "log_probability": value} for token, value in scored.tokens]
