"""The logits after each of several rows of tokens, from a model with a cache or without.

Legend: R rows (samples of prompts), V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from etude.search.next_token import Options

LONGEST = 1 << 30
"""A window of so many tokens is none."""


class Memory(Protocol):
    """What a model keeps of the rows that generate."""

    lengths: list[int]
    """Tokens that each row has seen."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be taken several times."""


@runtime_checkable
class Generates(Protocol):
    """A language model that can be asked token by token, see `etude.model.decoder`."""

    vocabulary: int

    @property
    def window(self) -> int:
        """The longest context."""
        ...

    @property
    def slides(self) -> bool:
        """Whether a full context goes on without its oldest token; otherwise its last half begins anew."""
        ...

    def begin(self, contexts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:
        """Logits [R, V] after each context, and what to go on with."""
        ...

    def step(self, tokens_R: Tensor, memory: Any) -> Tensor:
        """Logits [R, V] after one token more."""
        ...


class BeginsAgain(Protocol):
    """What a model has besides whose window does not slide."""

    def begin_again(self, contexts: Sequence[Sequence[int]], rows: Sequence[int], memory: Any) -> Tensor:
        """Logits [len(rows), V] after each context, which takes the place of what `rows` held."""
        ...


class LooksBack(Protocol):
    """What a model has besides whose window slides and is shorter than a text may be."""

    vocabulary: int
    output_weight: Tensor

    def hidden(self, tokens_BT: Tensor, /, *, window: int) -> Tensor:
        """What logits are made of, [B, T, M], where each token sees the last `window` alone."""
        ...


class NextLogits(Protocol):
    """The logits after rows of tokens that grow."""

    def begin(self) -> Tensor:
        """Logits after each prompt, for each of its samples."""
        ...

    def step(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits after the last token of each row, of which all the others were there before."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""


def next_logits(
    model: nn.Module, prompts: Sequence[Sequence[int]], options: Options, *, cached: bool = True
) -> NextLogits:
    """The logits of `model` after each sample of each prompt, by its cache where it has one."""
    if cached and isinstance(model, Generates):
        return CachedLogits(model, device_of(model), prompts, options)
    return UncachedLogits(model, prompts, options)


def context_start(length: int, window: int) -> int:
    """Where the context of `length` tokens begins for a model whose full window begins anew with its last half.

    >>> [context_start(length, 4) for length in (3, 4, 5, 6, 7, 8)]
    [0, 0, 3, 3, 3, 6]
    """
    advance = window + 1 - max(1, window // 2)
    return max(0, -(-(length - window) // advance)) * advance


def window_of(model: nn.Module) -> int:
    """How many tokens a model sees at most."""
    return min(getattr(model, "window", LONGEST), LONGEST)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device


@final
class CachedLogits:
    """Asks a model with its cache; what lies beyond the window is dropped, or its last half begins anew."""

    def __init__(
        self, model: Generates, device: torch.device, prompts: Sequence[Sequence[int]], options: Options
    ) -> None:
        self._model = model
        self._device = device
        self._samples = options.samples
        self._prompts = [list(prompt) for prompt in prompts]
        self._room = min(self._model.window, max(map(len, prompts)) + options.max_tokens)
        self._memory: Memory

    def begin(self) -> Tensor:
        """Logits after each prompt, for each of its samples."""
        contexts = [self._context(prompt, prompt=True) for prompt in self._prompts]
        logits_RV, self._memory = self._model.begin(contexts, self._room)
        if self._samples > 1:
            rows = [row for row in range(len(contexts)) for _ in range(self._samples)]
            self._memory.keep(rows)
            logits_RV = logits_RV[torch.tensor(rows, device=logits_RV.device)]
        return logits_RV

    def _context(self, tokens: Sequence[int], *, prompt: bool = False) -> Sequence[int]:
        if not self._model.slides:
            return tokens[context_start(len(tokens), self._model.window) :]
        return tokens[-self._model.window :] if prompt and len(tokens) > self._model.window else tokens

    def step(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits after the last token of each row, of which all the others are known already."""
        full = [] if self._model.slides else self._full()
        last = torch.tensor([tokens[-1] for tokens in rows], device=self._device)
        logits_RV = self._model.step(last, self._memory)
        if full:
            contexts = [self._context(rows[row]) for row in full]
            logits_RV[full] = cast("BeginsAgain", self._model).begin_again(contexts, full, self._memory)
        return logits_RV

    def _full(self) -> list[int]:
        return [row for row, length in enumerate(self._memory.lengths) if length >= self._model.window]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        self._memory.keep(rows)


@final
class UncachedLogits:
    """Asks a model anew for every token, row by row: what the cache is measured against, and for plain modules."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], options: Options) -> None:
        self._model = model
        self._window = window_of(model)
        self._slides = getattr(model, "slides", False)
        self._rows = [list(prompt) for prompt in prompts for _ in range(options.samples)]
        # A sliding window never sees more than this of its prompt.
        self._cut = [max(0, len(row) - self._window) for row in self._rows]

    def begin(self) -> Tensor:
        """Logits after each prompt, for each of its samples."""
        return self.step(self._rows)

    def step(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits after each row."""
        return torch.stack([self._logits(tokens, cut) for tokens, cut in zip(rows, self._cut, strict=True)])

    def _logits(self, tokens: Sequence[int], cut: int) -> Tensor:
        start = cut if self._slides else context_start(len(tokens), self._window)
        context = torch.tensor([tokens[start:]], device=device_of(self._model))
        if self._slides and context.size(1) > self._window:
            return self._looked_back(cast("LooksBack", self._model), context)
        return self._model(context)[0, -1]  # type: ignore[no-any-return]

    def _looked_back(self, model: LooksBack, context: Tensor) -> Tensor:
        return model.hidden(context, window=self._window)[0, -1] @ model.output_weight[: model.vocabulary].T

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        self._cut = [self._cut[row] for row in rows]
