"""How far a preparation is, told in sentences."""

import time
from collections.abc import Callable

from etude.base.says import Say

Report = Callable[[int, int], None]
"""Called with how much is done, and how much there is; in the end with all of it."""

SECONDS = 10.0
"""How often something is said; a preparation that takes less says nothing."""
MEGA = 1e6


def unreported(done: int, total: int) -> None:
    """Take a report that nobody asked for."""
    del done, total


class SpokenProgress:
    """A report that tells `notice`, every ten seconds, what share of the bytes is done and how quickly.

    `doing` begins the sentence, such as `Tokenising train.txt`.
    """

    def __init__(self, doing: str, notice: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._doing, self._notice, self._clock = doing, notice, clock
        self._begun = self._said = clock()

    def __call__(self, done: int, total: int) -> None:
        """Hear how many bytes are done, and how many there are."""
        now = self._clock()
        over = done >= total and self._said > self._begun
        if now - self._said >= SECONDS or over:
            rate = done / MEGA / max(now - self._begun, 1e-9)
            share = f"{100 * done / total:.0f} % of {total / MEGA:,.0f} MB" if total else "done"
            self._notice(f"{self._doing}: {share}, {rate:.1f} MB/s.")
            self._said = now
