"""From a config to a task over text."""

from typing import Any

import torch
from torch import nn

from etude.app.build import build_loss, imported, imported_task
from etude.app.config import TextConfig
from etude.app.texts import Texts
from etude.base.errors import ConfigError
from etude.data.feeds.text_batches import IGNORED
from etude.data.tokens.tokenizers import EOS, PAD
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import initialise
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.tasks.language_model.task import LanguageModelConfig, LanguageModelTask
from etude.train.task import Task


def build_text_task(config: TextConfig, texts: Texts) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    model = build_text_model(config, texts.tokenizer.size)
    loss = build_loss(config, ignored=IGNORED)
    if isinstance(config.task, LanguageModelConfig):
        return LanguageModelTask(model, config.task, loss=loss, tokenizer=texts.tokenizer, start=EOS)
    offered = {"model": model, "loss": loss, "tokenizer": texts.tokenizer}
    return imported_task(config.task, offered)


def build_text_model(config: TextConfig, vocabulary: int) -> nn.Module:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    model: Any
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        try:
            match config.model:
                case DecoderConfig():
                    _check_positions(config.model, config)
                    model = Decoder(config.model, vocabulary, config.init)
                    # Distances that training has not seen are not generated at.
                    model.window = min(model.window, config.longest_block or model.window)
                case RecurrentConfig():
                    model = Recurrent(config.model, vocabulary)
                case _:
                    model = imported(config.model, {"vocabulary": vocabulary, "pad": PAD}, "model")
        except (RuntimeError, MemoryError) as error:
            said = str(error).split(".")[0].split("] ")[-1]
            raise ConfigError(f"model.d_model and the model's other sizes cannot be made: {said}.") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.type must make a torch.nn.Module, but makes {type(model).__name__}.")
    if isinstance(model, Decoder | Recurrent) or config.init.weights:
        initialise(model, config.run.seed, config.init.weights, scheme=config.init.scheme)
    return model


def _check_positions(model: DecoderConfig, config: TextConfig) -> None:
    """Find now the row that would have no position when its batch comes."""
    longest = config.longest_block
    if model.positions == "learned" and longest is not None and longest > model.max_positions:
        raise ConfigError(
            f"data.block_size reaches {longest}, but model.max_positions is {model.max_positions}: raise that, or take "
            'model.positions = "rotary".'
        )
