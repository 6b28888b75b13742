"""From a config and the tokenizers to a task over pairs of texts."""

from torch import nn

from etude.base.config.components import Imported
from etude.base.errors import ConfigError
from etude.data.tokens.tokenizers import PAD
from etude.model.transformer import Transformer
from etude.tasks.parts import build_loss, imported, imported_task, initialised, made_model
from etude.tasks.translation.config import TranslationRun
from etude.tasks.translation.processor import PairProcessor
from etude.tasks.translation.task import TranslationTask
from etude.train.task import Task


def build_task(config: TranslationRun, processor: PairProcessor) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    model, loss = build_model(config, processor), build_loss(config, ignored=PAD)
    source, target = processor.source, processor.target
    if not isinstance(config.task, Imported):
        return TranslationTask(model, config.task, loss=loss, source_tokenizer=source, target_tokenizer=target)
    offered = {"model": model, "loss": loss, "source_tokenizer": source, "target_tokenizer": target}
    return imported_task(config.task, offered)


def build_model(config: TranslationRun, processor: PairProcessor) -> nn.Module:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    given, source, target = config.model, processor.source.size, processor.target.size
    if isinstance(given, Imported):
        offered = {"source_vocabulary": source, "target_vocabulary": target, "pad": PAD, "epoch": config.epoch}
        made = made_model(config, lambda: imported(given, offered, "model"), "The model's sizes")
    else:
        if given.share_embeddings and not processor.shared:
            raise ConfigError("model.share_embeddings needs one tokenizer for both sides, but [tokenizer] has two.")
        sizes = f"model.d_model = {given.d_model} and its other sizes"
        made = made_model(config, lambda: Transformer(given, source, target, PAD), sizes)
    return initialised(config, made)
