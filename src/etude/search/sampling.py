"""Generation: the search of a language model, token by token.

Legend: R rows (samples of prompts), V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError, DataError
from etude.base.randomness import generator
from etude.search.next_token import Choice, Options
from etude.search.text_stream import Decode, TextStream

End = Literal["", "eos", "stop", "length"]
"""Why a sample ended: the end token, a stop string, `max_tokens`; empty while it goes on."""
LONGEST = 1 << 30
"""A window of so many tokens is none."""


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


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """One token more of one sample."""

    prompt: int
    sample: int
    token: int
    log_probability: float
    """Of the token, in nats, under the model as it is (no temperature, nothing cut off)."""
    text: str
    """What can be said to be text by now; empty where a character or a stop string may be incomplete."""
    end: End


@final
@dataclass
class Generated:
    """One sample of one prompt."""

    tokens: list[int] = field(default_factory=list)
    """Without the end token."""
    text: str = ""
    log_probability: float = 0.0
    """Of all its tokens and, where there is one, its end token."""
    end: End = ""


@final
class _Row:
    """One sample in the making."""

    def __init__(
        self, place: tuple[int, int], seeded: int, context: Sequence[int], options: Options, decode: Decode | None
    ) -> None:
        self.prompt, self.sample = place
        self.tokens = list(context)
        """Prompt and what was chosen."""
        self.chosen = 0
        self._draws = generator(options.seed, "sample", seeded, self.sample)
        self._text = None if decode is None else TextStream(decode, context, options.stop)

    def draw(self) -> float:
        """The next of its random numbers in [0, 1)."""
        return float(self._draws.random())

    def take(self, token: int, log_probability: float, options: Options) -> Piece:
        """Go on with `token`."""
        self.chosen += 1
        end: End = ""
        text = ""
        if token == options.eos:
            end = "eos"
        else:
            self.tokens.append(token)
            if self._text is not None:
                text = self._text.add(token)
                end = "stop" if self._text.stopped else end
        if not end and self.chosen >= options.max_tokens:
            end = "length"
        if end and self._text is not None:
            text += self._text.rest()
        return Piece(self.prompt, self.sample, token, log_probability, text, end)


def context_start(length: int, window: int) -> int:
    """Where the context of `length` tokens begins for a model whose full window begins anew with its last half.

    >>> [context_start(length, 4) for length in (3, 4, 5, 6, 7, 8)]
    [0, 0, 3, 3, 3, 6]
    """
    advance = window + 1 - max(1, window // 2)
    return max(0, -(-(length - window) // advance)) * advance


@torch.no_grad()
def stream(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    options: Options,
    decode: Decode | None = None,
    *,
    first: int = 0,
    cached: bool = True,
) -> Iterator[Piece]:
    """Continue each of `prompts` (token ids, at least one), all side by side: a piece for each token of each sample.

    What a sample becomes does not depend on the others; for its draws the first prompt is number `first`. `decode`
    makes texts of tokens; stop strings need it.
    `cached = False` computes the whole context for every token; the result is the same. The model should be in `eval`
    mode; one that is not of `Generates` maps tokens [1, T] to logits [1, T, V]. Raises DataError for an empty prompt
    and ConfigError for stop strings without `decode`.
    """
    empty = next((number for number, prompt in enumerate(prompts) if not len(prompt)), None)
    if empty is not None:
        raise DataError(f"Prompt {empty + 1} has no token to begin with; give it the token that texts begin with.")
    if options.stop and decode is None:
        raise ConfigError("task.stop needs a tokenizer, which tells the text of the tokens.")
    if not prompts or options.max_tokens < 1:
        return
    rows = [
        _Row((number, sample), first + number, prompt, options, decode)
        for number, prompt in enumerate(prompts)
        for sample in range(options.samples)
    ]
    asked = (_Cached if cached and isinstance(model, Generates) else _Uncached)(model, prompts, options)
    logits_RV = asked.begin()
    choose = Choice(options, [row.tokens for row in rows], logits_RV)
    while True:
        tokens, log_probabilities = choose(logits_RV, [row.draw for row in rows])
        pieces = [
            row.take(token, value, options) for row, token, value in zip(rows, tokens, log_probabilities, strict=True)
        ]
        yield from pieces
        going = [number for number, piece in enumerate(pieces) if not piece.end]
        if not going:
            return
        if len(going) < len(rows):
            rows = [rows[number] for number in going]
            asked.keep(going)
            choose.keep(going)
        logits_RV = asked.step([row.tokens for row in rows])


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    options: Options,
    decode: Decode | None = None,
    *,
    on_piece: Callable[[Piece], object] = lambda _: None,
    first: int = 0,
    cached: bool = True,
) -> list[list[Generated]]:
    """The samples of each prompt, in order; see `stream`, whose pieces `on_piece` is told of as they come."""
    found = [[Generated() for _ in range(options.samples)] for _ in prompts]
    for piece in stream(model, prompts, options, decode, first=first, cached=cached):
        sample = found[piece.prompt][piece.sample]
        if piece.end != "eos":
            sample.tokens.append(piece.token)
        sample.text += piece.text
        sample.log_probability += piece.log_probability
        sample.end = piece.end
        on_piece(piece)
    return found


@final
class _Cached:
    """Asks a model with its cache; what lies beyond the window is dropped, or its last half begins anew."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], options: Options) -> None:
        self._model = model
        self._samples = options.samples
        self._prompts = [list(prompt) for prompt in prompts]
        self._room = min(self._model.window, max(map(len, prompts)) + options.max_tokens)
        self._memory: Any = None

    def begin(self) -> Tensor:
        """Logits after each prompt, for each of its samples."""
        contexts = [self._context(prompt, prompt=True) for prompt in self._prompts]
        logits_RV: Tensor
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
        last = torch.tensor([tokens[-1] for tokens in rows], device=_device(self._model))
        logits_RV: Tensor = self._model.step(last, self._memory)
        if full:
            contexts = [self._context(rows[row]) for row in full]
            logits_RV[full] = self._model.begin_again(contexts, full, self._memory)
        return logits_RV

    def _full(self) -> list[int]:
        return [row for row, length in enumerate(self._memory.lengths) if length >= self._model.window]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        self._memory.keep(rows)


@final
class _Uncached:
    """Asks a model anew for every token, row by row: what the cache is measured against, and for plain modules."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], options: Options) -> None:
        self._model: Any = model
        self._window = min(getattr(model, "window", LONGEST), LONGEST)
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
        model = self._model
        start = cut if self._slides else context_start(len(tokens), self._window)
        context = torch.tensor([tokens[start:]], device=_device(model))
        if self._slides and context.size(1) > self._window:
            hidden = model.hidden(context, window=self._window)[0, -1]
            return hidden @ model.output_weight[: model.vocabulary].T  # type: ignore[no-any-return]
        return model(context)[0, -1]  # type: ignore[no-any-return]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        self._cut = [self._cut[row] for row in rows]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
