"""What a translation looks at in its source.

Legend: B batch, L layers, H heads, T target time, S source time.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError, DataError
from etude.data.tokens.tokenizers import BOS, EOS
from etude.tasks.attention import Attention
from etude.tasks.by_length import encoded, padded
from etude.train.evaluate import evaluating

if TYPE_CHECKING:
    from etude.tasks.translation.task import Translation, TranslationTask


@runtime_checkable
class AttendsToSource(Protocol):
    """A model that tells how its decoder attends to the source."""

    def cross_attention(self, source: Tensor, decoder_input: Tensor, /) -> Tensor:
        """Weights [B, L, H, T, S] for sources [B, S] and inputs of the decoder [B, T]; each row sums to 1."""
        ...


def attention_of(task: "TranslationTask", text: str, translation: "Translation | None" = None) -> Attention:
    """What `translation`, or the best one that the task finds, looks at in `text`: one pass with its tokens as given.

    Raises ConfigError for a model without attention to the source or a task without tokenizers, DataError for a text
    that has no tokens.
    """
    model = _attending(task.model)
    if task.source_tokenizer is None or task.target_tokenizer is None:
        raise ConfigError("attention needs the tokenizers that the task was trained with: pass them to the task.")
    (source,) = encoded(task.source_tokenizer, [_one(text)])
    if not source:
        raise DataError("The text is blank: it has no translation that could attend to it.")
    chosen = translation or next(task.predict([text]))[0]
    source_BS, input_BT = padded([source]), torch.tensor([[BOS, *chosen.tokens]])
    with evaluating(task), torch.no_grad():
        weights_BLHTS = model.cross_attention(source_BS.to(task.device), input_BT.to(task.device))
    _check(weights_BLHTS, task.model, input_BT.size(1), source_BS.size(1))
    return Attention(
        tuple(task.source_tokenizer.spell(source_BS[0].tolist())),
        tuple(task.target_tokenizer.spell([*chosen.tokens, EOS])),
        weights_BLHTS[0].float().cpu(),
    )


def _one(text: object) -> str:
    """The text, and no list of texts."""
    match text:
        case str():
            return text
    raise ConfigError(f"attention is of one text, a string, but was given a {type(text).__name__}.")


def _attending(model: nn.Module) -> AttendsToSource:
    match model:
        case AttendsToSource():
            return model
    raise ConfigError(
        f"{type(model).__name__} does not tell how it attends to the source: "
        "for that it needs the method cross_attention(source, decoder_input), which gives [B, layers, heads, T, S]."
    )


def _check(weights: Tensor, model: nn.Module, length: int, source: int) -> None:
    """Refuse weights of another shape from a model of the user's own."""
    match weights.shape:
        case (1, _, _, rows, columns) if (rows, columns) == (length, source):
            return
    raise ConfigError(
        f"{type(model).__name__}.cross_attention must give [1, layers, heads, {length}, {source}] for a source of "
        f"{source} tokens and a decoder input of {length}, but gives {list(weights.shape)}."
    )
