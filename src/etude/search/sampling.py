"""Generation: the search of a language model, token by token.

Legend: R rows (samples of prompts), V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError, DataError
from etude.base.randomness import generator
from etude.search.next_logits import NextLogits, next_logits
from etude.search.next_token import Choice, Options
from etude.search.text_stream import Decode, NoText, TextStream

End: TypeAlias = Literal["", "eos", "stop", "length"]
"""Why a sample ended: the end token, a stop string, `max_tokens`; empty while it goes on."""


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
        self._text = NoText() if decode is None else TextStream(decode, context, options.stop)

    def draw(self) -> float:
        """The next of its random numbers in [0, 1)."""
        return float(self._draws.random())

    def take(self, token: int, log_probability: float, options: Options) -> Piece:
        """Go on with `token`."""
        self.chosen += 1
        text, end = "", self._end(token, options)
        if end != "eos":
            self.tokens.append(token)
            text = self._text.add(token)
            end = "stop" if self._text.stopped else end
        if end:
            text += self._text.rest()
        return Piece(self.prompt, self.sample, token, log_probability, text, end)

    def _end(self, token: int, options: Options) -> End:
        if token == options.eos:
            return "eos"
        return "length" if self.chosen >= options.max_tokens else ""


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
    mode; one without `begin` and `step` (see `etude.search.next_logits`) maps tokens [1, T] to logits [1, T, V]. Raises
    DataError for an empty prompt and ConfigError for stop strings without `decode`.
    """
    _check(prompts, options, decode)
    if not prompts or options.max_tokens < 1:
        return
    rows = [
        _Row((number, sample), first + number, prompt, options, decode)
        for number, prompt in enumerate(prompts)
        for sample in range(options.samples)
    ]
    yield from _pieces(rows, next_logits(model, prompts, options, cached=cached), options)


def _check(prompts: Sequence[Sequence[int]], options: Options, decode: Decode | None) -> None:
    empty = [number for number, prompt in enumerate(prompts, start=1) if not len(prompt)]
    if empty:
        raise DataError(f"Prompt {empty[0]} has no token to begin with; give it the token that texts begin with.")
    if options.stop and decode is None:
        raise ConfigError("task.stop needs a tokenizer, which tells the text of the tokens.")


def _pieces(rows: list[_Row], source: NextLogits, options: Options) -> Iterator[Piece]:
    """Choose a token for every row, then drop the rows that have ended, until there are none."""
    logits_RV = source.begin()
    choose = Choice(options, [row.tokens for row in rows], logits_RV)
    while True:
        pieces = _taken(rows, choose, logits_RV, options)
        yield from pieces
        going = [number for number, piece in enumerate(pieces) if not piece.end]
        if not going:
            return
        if len(going) < len(rows):
            rows = [rows[number] for number in going]
            source.keep(going)
            choose.keep(going)
        logits_RV = source.step([row.tokens for row in rows])


def _taken(rows: Sequence[_Row], choose: Choice, logits_RV: Tensor, options: Options) -> list[Piece]:
    tokens, log_probabilities = choose(logits_RV, [row.draw for row in rows])
    chosen = zip(rows, tokens, log_probabilities, strict=True)
    return [row.take(token, log_probability, options) for row, token, log_probability in chosen]


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
