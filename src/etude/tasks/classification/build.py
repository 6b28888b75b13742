"""From a config, the tokenizer and the labels to a task over labelled texts."""

import torch
from torch import Tensor, nn

from etude.base.config.components import Imported
from etude.data.tokens.tokenizers import PAD
from etude.model.classifier import TextClassifier
from etude.model.losses.weighted import balanced_weights
from etude.tasks.classification.config import ClassificationConfig, ClassificationRun
from etude.tasks.classification.processor import LabelProcessor
from etude.tasks.classification.task import NO_LABEL, ClassificationTask
from etude.tasks.parts import build_loss, imported, imported_task, initialised, made_model
from etude.train.task import Task


def build_task(config: ClassificationRun, processor: LabelProcessor) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    model, loss = build_model(config, processor), build_loss(config, ignored=NO_LABEL)
    tokenizer, labels = processor.tokenizer, processor.labels
    if isinstance(config.task, Imported):
        offered = {"model": model, "loss": loss, "tokenizer": tokenizer, "labels": labels}
        return imported_task(config.task, offered)
    weights = _class_weights(config.task, processor)
    return ClassificationTask(model, labels, config.task, loss=loss, tokenizer=tokenizer, class_weights=weights)


def build_model(config: ClassificationRun, processor: LabelProcessor) -> nn.Module:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    given, vocabulary, classes = config.model, processor.tokenizer.size, len(processor.labels)
    if isinstance(given, Imported):
        offered = {"vocabulary": vocabulary, "classes": classes, "pad": PAD}
        made = made_model(config, lambda: imported(given, offered, "model"), "The model's sizes")
    else:
        sizes = f"model.d_model = {given.d_model} and its other sizes"
        made = made_model(config, lambda: TextClassifier(given, vocabulary, classes, PAD), sizes)
    return initialised(config, made)


def _class_weights(task: ClassificationConfig, processor: LabelProcessor) -> Tensor | None:
    return None if task.class_weights is None else balanced_weights(torch.tensor(processor.counts))
