"""Fusion of a language model: the next label's log-probability from a network over the same tokens.

Legend: R rows, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from etude.base.errors import DataError
from etude.data.tokens.tokenizers import EOS
from etude.search.fusion import LabelModel
from etude.search.next_logits import Generates


@final
@dataclass(slots=True, eq=False)
class Told:
    """A text so far, and once it is needed the log-probability of each token after it."""

    tokens: tuple[int, ...]
    logs: list[float] | None = None


@final
class NetworkModel(LabelModel[Told]):
    """A model of the task `language_model`, such as `etude.model.decoder.Decoder`, whose tokens are the labels.

    A text begins behind `begin` and is over with `end`, as that task trains; both are eos unless given. What is longer
    than the model's window is scored after its last tokens. Texts are computed anew with each label, all that a
    search asks for at once: right for lines, not for pages. Labels that the model has no token for are impossible.
    Raises DataError where the model's logits are not numbers.
    """

    def __init__(self, model: Generates, *, begin: int = EOS, end: int = EOS) -> None:
        self._model, self._begin, self._end = model, begin, end

    def start(self) -> Told:
        """The text that is only begun."""
        return Told((self._begin,))

    def score(self, state: Told, label: int, /) -> tuple[float, Told]:
        """The log-probability of the label as the next token."""
        logs = self._logs(state)
        return logs[label] if label < len(logs) else -math.inf, Told((*state.tokens, label))

    def end(self, state: Told, /) -> float:
        """That of the end."""
        return self._logs(state)[self._end]

    @torch.no_grad()
    def prepare(self, states: Sequence[Told], /) -> None:
        """Ask the model for all that it was not asked for."""
        new = [state for state in states if state.logs is None]
        if not new:
            return
        contexts = [state.tokens[-self._model.window :] for state in new]
        logits_RV, _ = self._model.begin(contexts, max(map(len, contexts)))
        logs_RV = _real(logits_RV.float().log_softmax(1))
        for state, logs in zip(new, logs_RV.tolist(), strict=True):
            state.logs = logs

    def _logs(self, state: Told) -> list[float]:
        if state.logs is None:
            self.prepare([state])
        return state.logs or []


def _real(logs_RV: Tensor) -> Tensor:
    if logs_RV.isnan().any():
        raise DataError(
            "The language model of the fusion gives logits that are not numbers; its weights must be finite."
        )
    return logs_RV
