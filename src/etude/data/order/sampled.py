"""A plan that follows a sampler of the user's own."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from etude.base.randomness import seed_of
from etude.base.says import Say, unheard
from etude.data.order.plan import ALONE, Planned, Position, Share
from etude.data.order.states import on_its_own, reseed

T = TypeVar("T")


class Announced:
    """Compares the batches that an epoch had with those that its source said it has, and says once where they differ.

    An epoch is one pass, whatever its length was said to be.
    """

    def __init__(self, notice: Say) -> None:
        self._notice = notice
        self._said = False

    def ended(self, announced: int | None, found: int) -> None:
        """Take in an epoch that has ended."""
        if announced in {None, found} or self._said:
            return
        self._said = True
        self._notice(
            f"The data says (by its __len__) that an epoch has {announced:,} batches, but it gave {found:,}: an epoch "
            "is one pass, of all that came. What is computed from the length, such as a schedule that reaches to the "
            "end of the run, goes by what the data says."
        )


AHEAD = 32
"""Batches of numbers drawn at a time: global states are exchanged once for all of them."""


class SamplerPlan:
    """The batches that a sampler (of batches, or with `single` of one key at a time) draws.

    The sampler is seeded from (seed, epoch): `set_epoch` if it has that, every generator it keeps, and the global
    ones while it draws. To go on in the middle, its numbers are drawn again and passed over; no sample is loaded.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        *,
        seed: int,
        share: Share = ALONE,
        single: bool = False,
        exact: bool = False,
        notice: Say = unheard,
    ) -> None:
        self._sampler = sampler
        self._seed = seed
        self._single = single
        self._exact = exact
        self._announced = Announced(notice)
        # A sampler that knows of ranks has dealt out its samples already.
        self._apart = any(hasattr(part, "num_replicas") for part in self._parts())
        self._share = ALONE if self._apart else share
        self._world = share.world if self._apart else 1

    @property
    def samples(self) -> int | None:
        """Unknown: samplers tell their batches at most."""
        return None

    @property
    def batches(self) -> int | None:
        """Batches of an epoch; None where unknown."""
        try:
            return len(self._sampler)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):
            return None

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        return self._exact and self.batches is not None

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Planned]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        done, sample = (position["batch"], position["sample"]) if position else (0, 0)
        for part in self._parts():
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
            reseed(part, seed_of(self._seed, "sampler", epoch))
        drawn = on_its_own(self._sampler, seed_of(self._seed, "sampler", epoch), ahead=AHEAD)
        batch = 0
        for keys, last in ended(drawn):
            batch += 1
            if batch <= done:
                continue
            numbers: Sequence[Any] = [keys] if self._single else list(keys)
            count = len(numbers) * self._world
            sample += count
            after = {"batch": batch, "sample": sample}
            if last:
                self._announced.ended(self.batches, batch)
            yield Planned(self._share.of(numbers), count, after, last, self._share.borrows(len(numbers)))

    def resize(self, size: int) -> None:
        """Do nothing: the sampler alone knows what a batch holds."""

    def _parts(self) -> list[Any]:
        inner = getattr(self._sampler, "sampler", None)
        return [self._sampler] if inner is None else [self._sampler, inner]


def ended(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Give each item with whether it is the last, looking one ahead.

    >>> list(ended("ab"))
    [('a', False), ('b', True)]
    """
    iterator = iter(items)
    for held in iterator:
        for following in iterator:
            yield held, False
            held = following  # noqa: PLW2901 - the one in hand is always the one before
        yield held, True
