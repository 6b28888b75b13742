"""From a config and the tokenizer to a task over text."""

from collections.abc import Callable

from torch import nn

from etude.base.config.components import Imported
from etude.base.errors import ConfigError
from etude.data.feeds.text_batches import IGNORED
from etude.data.tokens.tokenizers import EOS, PAD
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.encoder import EncoderConfig
from etude.model.masked import MaskedEncoder
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.tasks.language_model.config import TextRun
from etude.tasks.language_model.masked import MaskedTask
from etude.tasks.language_model.processor import TextProcessor
from etude.tasks.language_model.task import LanguageModelTask
from etude.tasks.parts import build_loss, imported, imported_task, initialised, made_model
from etude.train.task import Task


def build_task(config: TextRun, processor: TextProcessor) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    tokenizer = processor.tokenizer
    model = build_model(config, tokenizer.size)
    loss = build_loss(config, ignored=IGNORED)
    if not isinstance(config.task, Imported):
        if config.masks is not None:
            return MaskedTask(model, config.task, loss)
        return LanguageModelTask(model, config.task, loss=loss, tokenizer=tokenizer, start=EOS)
    return imported_task(config.task, {"model": model, "loss": loss, "tokenizer": tokenizer})


def build_model(config: TextRun, vocabulary: int) -> nn.Module:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    made = made_model(config, _maker(config, vocabulary), "model.d_model and the model's other sizes")
    return initialised(config, made, scheme=True)


def _maker(config: TextRun, vocabulary: int) -> Callable[[], object]:
    match config.model:
        case DecoderConfig() as decoder:
            return lambda: _decoder(decoder, config, vocabulary)
        case RecurrentConfig() as recurrent:
            return lambda: Recurrent(recurrent, vocabulary)
        case EncoderConfig() as encoder:
            _check_positions(encoder, config.longest_block)
            return lambda: MaskedEncoder(encoder, vocabulary, PAD)
        case own:
            return lambda: imported(own, {"vocabulary": vocabulary, "pad": PAD, "epoch": config.epoch}, "model")


def _decoder(given: DecoderConfig, config: TextRun, vocabulary: int) -> Decoder:
    _check_positions(given, config.longest_block)
    model = Decoder(given, vocabulary, config.init)
    # Distances that training has not seen are not generated at.
    model.window = min(model.window, config.longest_block or model.window)
    return model


def _check_positions(model: DecoderConfig | EncoderConfig, longest: int | None) -> None:
    """Find now the row that would have no position when its batch comes."""
    if model.positions == "learned" and longest is not None and longest > model.max_positions:
        raise ConfigError(
            f"data.block_size reaches {longest}, but model.max_positions is {model.max_positions}: raise that, or take "
            'model.positions = "rotary".'
        )
