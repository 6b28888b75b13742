"""The text of tokens that come one by one."""

from collections.abc import Callable, Sequence
from typing import final

from etude.data.tokens.tokenizers import REPLACEMENT

Decode = Callable[[Sequence[int]], str]
LOOKBACK = 8
"""Tokens before the newest that are decoded with it: what a token reads as may depend on the one before."""


@final
class TextStream:
    """Turns the tokens of one sample into text as they come.

    What may still change is held back: bytes that are no whole character yet, and what may become a stop string.
    Once `stopped`, the text ends before the stop string.
    """

    def __init__(self, decode: Decode, context: Sequence[int], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._tokens = list(context)[-LOOKBACK:]
        self._said = len(self._tokens)
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """Whether a stop string has come."""

    def add(self, token: int) -> str:
        """The text that is certain now."""
        self._tokens.append(token)
        fresh = self._fresh()
        # A few bytes may be part of a character; more than that are none.
        if fresh.endswith(REPLACEMENT) and len(self._tokens) - self._said < 4:  # noqa: PLR2004 - the bytes of a character
            return ""
        return self._certain(fresh)

    def rest(self) -> str:
        """What was held back, at the end of the sample."""
        if self.stopped:
            return ""
        text = self._certain(self._fresh())
        held, self._held = self._held, ""
        return text + held

    def _fresh(self) -> str:
        begin = max(0, self._said - LOOKBACK)
        before = self._decode(self._tokens[begin : self._said])
        return self._decode(self._tokens[begin:])[len(before) :]

    def _certain(self, fresh: str) -> str:
        self._said = len(self._tokens)
        text = self._held + fresh
        places = [place for place in map(text.find, self._stops) if place >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        held = max((self._beginning(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """How many characters at the end of `text` may be the beginning of `stop`."""
        most = min(len(stop) - 1, len(text))
        return next((size for size in range(most, 0, -1) if stop.startswith(text[-size:])), 0)


@final
class NoText:
    """The text of tokens where nothing can decode them: none."""

    stopped = False

    def add(self, token: int) -> str:
        """No text."""
        del token
        return ""

    def rest(self) -> str:
        """No text."""
        return ""
