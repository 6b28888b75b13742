"""From a config, tokenizer and audio to a task over transcribed recordings."""

from collections.abc import Sequence
from typing import cast

from torch import nn

from etude.base.config.components import Imported
from etude.model.frames.encoders import build_encoder
from etude.model.losses.config import LossSection
from etude.tasks.parts import imported, imported_task, initialised, made_model
from etude.tasks.sounds import Ears
from etude.tasks.speech_recognition.config import (
    AttentionLossConfig,
    FramewiseConfig,
    Headed,
    HeadName,
    SpeechRun,
    SumConfig,
    TransducerLossConfig,
    aligned_loss,
)
from etude.tasks.speech_recognition.framewise import FramewiseHead, PathHead
from etude.tasks.speech_recognition.heads import AttendingHead, CtcHead, TransductionHead
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


def head_names(loss: LossSection) -> Sequence[HeadName]:
    """The heads that a loss is of, the one that searches first."""
    match loss:
        case SumConfig(names=names):
            return names
        case TransducerLossConfig() | FramewiseConfig(head="transducer"):
            return ("transducer",)
        case AttentionLossConfig():
            return ("attention",)
        case FramewiseConfig():
            return ("framewise",)
    return ("ctc",)


def build_heads(loss: LossSection, given: Headed, width: int, classes: int) -> dict[str, nn.Module]:
    """The heads that the loss asks for, by name."""
    found: dict[str, nn.Module] = {name: _head(name, loss, given, width, classes) for name in head_names(loss)}
    match found:
        case {"attention": AttendingHead() as attending, "ctc": CtcHead() as ctc}:
            attending.beside.append(ctc)
    return found


def _head(name: HeadName, loss: LossSection, given: Headed, width: int, classes: int) -> nn.Module:
    match name, loss, aligned_loss(loss):
        case "transducer", _, FramewiseConfig(head="transducer", label_smoothing=smoothing):
            return PathHead(given.transducer, width, classes, BLANK, smoothing)
        case "framewise", _, FramewiseConfig(label_smoothing=smoothing):
            return FramewiseHead(width, classes, BLANK, smoothing)
        case "transducer", TransducerLossConfig(joint_megabytes=most) | SumConfig(joint_megabytes=most), _:
            return TransductionHead(given.transducer, width, classes, BLANK, most << 20)
        case "attention", AttentionLossConfig(label_smoothing=share) | SumConfig(label_smoothing=share), _:
            return AttendingHead(given.attention, width, classes, label_smoothing=share)
    return CtcHead(width, classes, BLANK)


def build_model(config: SpeechRun, processor: SpeechProcessor) -> SpeechModel:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    given, classes, features = config.model, processor.tokenizer.size, config.data.features.output_width
    if isinstance(given, Imported):
        offered = {"features": features, "classes": classes, "blank": BLANK, "epoch": config.epoch}
        own = made_model(config, lambda: imported(given, offered, "model"), "The model's sizes")
        return SpeechModel(initialised(config, own), {"ctc": CtcHead(None, classes, BLANK)})

    def make() -> SpeechModel:
        encoder = build_encoder(given, features)
        return SpeechModel(encoder, build_heads(config.loss, given, encoder.width, classes))

    made = cast("SpeechModel", made_model(config, make, f"model.d_model = {given.d_model} and its other sizes"))
    initialised(config, made)
    return made
