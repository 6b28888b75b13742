"""Transcribes recordings: what `etude predict` and `Run.predict` ask of a recogniser."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import cast, final

from etude.base.errors import ConfigError
from etude.data.audio.reading import Wave
from etude.metrics.text import one_line
from etude.search import captions
from etude.search.words import Word
from etude.tasks.answers import reason
from etude.tasks.sharing import consecutive, in_turns
from etude.tasks.sounds import Asked as Sound
from etude.tasks.sounds import Ears, is_manifest
from etude.tasks.speech_recognition.streaming import streamed
from etude.tasks.speech_recognition.task import Recognised, SpeechTask
from etude.tasks.task_type import Asked, Missing, Predictor, Questions
from etude.train.world import ALONE, World

BATCH_SIZE = 16
"""Recordings computed together unless the shell says otherwise."""
Found = Sequence[Recognised] | Missing
Answer = tuple[Sound, Found]


@final
class Recogniser(Predictor):
    """The transcript of each recording, in one of several forms."""

    def __init__(self, task: SpeechTask, ears: Ears) -> None:
        self._task, self._ears = task, ears
        self._world: World = ALONE

    def among(self, world: World) -> None:
        """Share recordings with other ranks; each reads all of them."""
        self._world = world

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """What is written of each recording, in order; or of one stream of samples, as they come."""
        if "stream" in asked.flags:
            yield from streamed(self._task, questions, asked)
            return
        write = _form(asked)
        alone = questions.path is not None and not is_manifest(questions.path) and _is_text(asked)
        sounds = _as_many(self._ears.questions(questions), asked)
        for number, (sound, found) in enumerate(self._answered(sounds, asked.batch_size or BATCH_SIZE)):
            match found:
                case Missing(error=why):
                    questions.unanswered(number, why)
            yield write(sound, found)
            if alone:
                for word in _words(found):
                    questions.beside(f"{word.start:9.2f} {word.end:9.2f}  {one_line(word.text)}")

    def best(self, texts: Iterable[str]) -> Iterator[str | Missing]:
        """The best transcript of each recording, given by its path, and why one has none."""
        for _, found in self._answered(self._ears.files(texts), BATCH_SIZE):
            match found:
                case Missing() as none:
                    yield none
                case [first, *_]:
                    yield first.text

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Sequence[Recognised | Missing]]:
        """For each recording, given by its path, its transcripts with their scores, best first."""
        size = options.get("batch_size", BATCH_SIZE)
        for _, found in self._answered(self._ears.files(texts), size):
            match found:
                case Missing() as none:
                    yield [none]
                case several:
                    yield several

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The best transcript of each sample."""
        match outputs:
            case [[Recognised(), *_], *_]:
                return [best[0].text for best in cast("Sequence[Sequence[Recognised]]", outputs)]
        return None

    def _answered(self, sounds: Iterable[Sound], size: int) -> Iterator[Answer]:
        """Recognise several recordings at a time; one that has no answer costs no other its own."""
        waiting = iter(sounds)
        while blocks := consecutive(list(islice(waiting, size * self._world.size)), size):
            names = [sound.name for block in blocks for sound in block]
            for block, found in zip(blocks, self._found(blocks, names), strict=True):
                for sound, one in zip(block, found, strict=True):
                    yield sound, _placed(sound, one)

    def _found(self, blocks: Sequence[Sequence[Sound]], names: Sequence[str]) -> Iterator[Sequence[Found]]:
        """What is found in each block, by whichever rank."""
        for found in in_turns(self._world, blocks, self._of_block, about=names):
            if isinstance(found, Exception):
                raise found
            yield found

    def _of_block(self, block: Sequence[Sound]) -> list[Found]:
        found = iter(self._recognised([sound.wave for sound in block if not isinstance(sound.wave, Missing)]))
        return [sound.wave if isinstance(sound.wave, Missing) else next(found) for sound in block]

    def _recognised(self, waves: Sequence[Wave]) -> list[Found]:
        try:
            return list(self._task.predict(waves, batch_size=len(waves)))
        except (RuntimeError, MemoryError) as error:
            if len(waves) == 1:
                return [Missing(reason(error))]
        return [found for wave in waves for found in self._recognised([wave])]


def _placed(sound: Sound, found: Found) -> Found:
    """What was found, with times of the file that a recording is a part of."""
    match found:
        case Missing():
            return found
    return [replace(one, words=tuple(_later(word, sound.start) for word in one.words)) for one in found]


def _later(word: Word, seconds: float) -> Word:
    return replace(word, start=word.start + seconds, end=word.end + seconds)


# -- forms ---------------------------------------------------------------------------------------------------------


def _is_text(asked: Asked) -> bool:
    """Whether answers are lines of text, without times."""
    return not asked.json and asked.flags.get("format", "text") == "text"


def _as_many(sounds: Iterable[Sound], asked: Asked) -> Iterator[Sound]:
    """The recordings. Raises ConfigError at the second one, where the form is that of one."""
    name = asked.flags.get("format")
    for number, sound in enumerate(sounds):
        if number and name in OF_ONE:
            raise ConfigError(
                f"--format {name} writes the file of one recording, but {sound} is another: name one recording, or "
                f"take --format ctm or json, which hold several."
            )
        yield sound


def _form(asked: Asked) -> Callable[[Sound, Found], str]:
    """How an answer is written. Raises ConfigError for a form that is not there."""
    name = str(asked.flags.get("format", "json" if asked.json else "text"))
    if name == "text":
        return lambda _, found: f"{asked.safe(one_line(_text(found)))}\n"
    if name not in FORMS:
        raise ConfigError(f"--format must be text, {', '.join(FORMS)}, but is {name}.")
    return FORMS[name]


def _text(found: Found) -> str:
    match found:
        case [first, *_]:
            return first.text
    return ""


def _words(found: Found) -> Sequence[Word]:
    match found:
        case [first, *_]:
            return first.words
    return ()


def _object(sound: Sound, found: Found) -> str:
    told: Mapping[str, object]
    match found:
        case Missing(error=why):
            told = {"source": sound.name, "prediction": None, "error": why}
        case [first, *_]:
            told = {
                "source": sound.name,
                "prediction": first.text,
                "score": first.score,
                "words": json.loads(captions.as_json(first.words)),
                "predictions": [{"text": one.text, "score": one.score} for one in found],
            }
    return json.dumps(told, ensure_ascii=False) + "\n"


FORMS: Mapping[str, Callable[[Sound, Found], str]] = {
    "json": _object,
    "srt": lambda _, found: captions.srt(_words(found)),
    "vtt": lambda _, found: captions.vtt(_words(found)),
    "ctm": lambda sound, found: captions.ctm(_words(found), sound.name),
    "textgrid": lambda sound, found: captions.textgrid(_words(found), sound.start + sound.seconds),
}
"""How the words of a recording are written, by name; times are those of its file."""
OF_ONE = ("srt", "vtt", "textgrid")
"""Forms that hold one recording."""
