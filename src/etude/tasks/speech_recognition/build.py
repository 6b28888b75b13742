"""From a config, tokenizer and audio to a task over transcribed recordings."""

from typing import cast

from torch import nn

from etude.base.config.components import Imported
from etude.model.frames.encoders import build_encoder
from etude.tasks.parts import imported, imported_task, initialised, made_model
from etude.tasks.sounds import Ears
from etude.tasks.speech_recognition.config import FramewiseConfig, SpeechRun
from etude.tasks.speech_recognition.framewise import FramewiseHead
from etude.tasks.speech_recognition.heads import CtcHead
from etude.tasks.speech_recognition.model import SpeechModel
from etude.tasks.speech_recognition.processor import BLANK, SpeechProcessor
from etude.tasks.speech_recognition.task import SpeechTask
from etude.train.task import Task


def build_task(config: SpeechRun, processor: SpeechProcessor) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    model, tokenizer = build_model(config, processor), processor.tokenizer
    front_end = processor.sound.front_end(config.data)
    if isinstance(config.task, Imported):
        offered = {"model": model, "tokenizer": tokenizer, "front_end": front_end, "blank": BLANK}
        return imported_task(config.task, offered)
    ears = Ears(config.data, processor.sound.rate)
    return SpeechTask(model, config.task, tokenizer=tokenizer, front_end=front_end, ears=ears)


def build_model(config: SpeechRun, processor: SpeechProcessor) -> SpeechModel:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    given, classes, features = config.model, processor.tokenizer.size, config.data.features.output_width
    if isinstance(given, Imported):
        offered = {"features": features, "classes": classes, "blank": BLANK}
        own = made_model(config, lambda: imported(given, offered, "model"), "The model's sizes")
        return SpeechModel(initialised(config, own), {"ctc": CtcHead(None, classes, BLANK)})

    def make() -> SpeechModel:
        encoder = build_encoder(given, features)
        return SpeechModel(encoder, _heads(config, encoder.width, classes))

    made = cast("SpeechModel", made_model(config, make, f"model.d_model = {given.d_model} and its other sizes"))
    initialised(config, made)
    return made


def _heads(config: SpeechRun, width: int, classes: int) -> dict[str, nn.Module]:
    """The head of the loss."""
    match config.loss:
        case FramewiseConfig(label_smoothing=smoothing):
            return {"framewise": FramewiseHead(width, classes, BLANK, smoothing)}
    return {"ctc": CtcHead(width, classes, BLANK)}
