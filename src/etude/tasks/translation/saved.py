"""What is saved of each sample of a translation.

Legend: B batch, T target time, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.data.feeds.batches import PairBatch
from etude.data.tokens.tokenizers import PAD, Tokenizer

if TYPE_CHECKING:
    from etude.tasks.translation.task import Translation, TranslationTask

CELLS = 1 << 24
"""Logits that are held at a time: samples are taken in parts that have no more."""


def translation_columns(
    task: "TranslationTask", batch: PairBatch, outputs: "Sequence[Sequence[Translation]] | None"
) -> Mapping[str, object]:
    """Columns of a batch: `source` and `target` as decoded, `prediction` (None where nothing was translated),
    `scores` of all translations, best first, `loss` (plain cross entropy, mean of the target tokens) and `tokens`.
    """
    found = outputs or [()] * len(batch)
    tokens = batch.target_lengths - 1
    return {
        "prediction": [best[0].text if best else None for best in found],
        "scores": [[one.score for one in best] for best in found],
        "loss": sample_losses(task.model, batch) / tokens,
        "tokens": tokens,
        **_decoded("source", task.source_tokenizer, batch.source),
        **_decoded("target", task.target_tokenizer, batch.target),
    }


def _decoded(side: str, tokenizer: Tokenizer | None, ids: Tensor) -> dict[str, list[str]]:
    """The texts of a side, where there is a tokenizer that reads them."""
    return {} if tokenizer is None else {side: [tokenizer.decode(row) for row in ids.tolist()]}


def sample_losses(model: nn.Module, batch: PairBatch) -> Tensor:
    """The plain cross entropy of each sample, summed over its target tokens: [B] in float32."""
    inputs_BT, targets_BT = batch.target[:, :-1], batch.target[:, 1:]
    found = []
    step = len(batch)
    first = 0
    while first < len(batch):
        rows = slice(first, first + step)
        if first == 0 and len(batch) > 1:
            rows = slice(0, 1)  # its logits tell how large the vocabulary is
        logits_BTV = model(batch.source[rows], inputs_BT[rows])
        step = max(1, CELLS // max(1, logits_BTV[0].numel()))
        losses_BT = F.cross_entropy(
            logits_BTV.float().transpose(1, 2), targets_BT[rows], ignore_index=PAD, reduction="none"
        )
        found.append(losses_BT.sum(1))
        first = rows.stop
    return torch.cat(found) if found else torch.zeros(0)
