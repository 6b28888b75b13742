"""Randomness that is computed from (seed, names), never left over in a global generator."""

import hashlib
import math
import operator
from typing import Any, Final, final

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: its multiples lie far apart (splitmix64)."""
_ROUNDS: Final = 8
_SMALL: Final = 2048
"""Up to this many are ordered by sorting their hashes: at most 16 KiB, and every order is equally likely."""
_MOST: Final = 1 << 62


def seed_of(seed: int, *names: str | int) -> int:
    """A 63-bit seed of its own for every (seed, names), the same on every platform and in every version.

    The whole path counts: `seed_of(1, "a", "b")`, `seed_of(1, "ab")` and `seed_of(1, "a", 1)` differ from each other.
    Raises TypeError for a name that is neither text nor a whole number.

    >>> seed_of(1, "order", 0)
    7108626819450877720
    """
    # A length before each text keeps ("a", "bc") and ("ab", "c") apart; the letter keeps 1 and "1" apart.
    path = [f"i{operator.index(seed)};"]
    path += [f"s{len(name)}:{name};" if isinstance(name, str) else f"i{operator.index(name)};" for name in names]
    digest = hashlib.blake2b("".join(path).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@final
class _Key(ISeedSequence):
    """Gives Philox its key as it is; with `key=` numpy would ask the system for entropy too, and take twice as long."""

    def __init__(self, key: int) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[Any]:
        """The key, and zeros."""
        words = np.zeros(n_words, dtype)
        words[0] = self._key
        return words


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator of its own for every (seed, names): Philox, a counter-based one.

    >>> bool(generator(1, "a").random() == np.random.Generator(np.random.Philox(key=seed_of(1, "a"))).random())
    True
    """
    return np.random.Generator(np.random.Philox(_Key(seed_of(seed, *names))))  # type: ignore[arg-type]  # of any kind


def uniform_each(members: NDArray[np.int64], seed: int, *names: str | int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each member of an array, the same for a member whatever it is beside.

    >>> numbers = uniform_each(np.array([3, 7, 3]), 1, "speed")
    >>> bool(numbers[0] == numbers[2] == uniform_each(np.array([3]), 1, "speed")[0])
    True
    """
    mixed = _mixed_each(members.astype(np.uint64) * np.uint64(_GOLDEN), seed_of(seed, *names))
    mixed >>= np.uint64(11)
    return mixed.astype(np.float64) * 2.0**-53


@final
class Permutation:
    """An order of 0 ... n - 1 that is computed wherever it is asked for, and never stored.

    Reading at any place costs the same. A Feistel network over pairs (a, b) with a * b just above n (Black and Rogaway
    2002, "Ciphers with arbitrary finite domains"), walked again on the few values that fall outside.

    >>> order = Permutation(5, seed=1)
    >>> sorted(order.take(0, 5).tolist()), order[3] == int(order.take(3, 4)[0])
    ([0, 1, 2, 3, 4], True)
    """

    __slots__ = ("_keys", "_left", "_n", "_right", "_table")

    def __init__(self, n: int, seed: int) -> None:
        if not 0 <= n <= _MOST:
            raise ValueError(f"a permutation must have between 0 and 2**62 members, but was asked for {n}.")
        self._n = n
        self._keys = [seed_of(seed, "permutation", number) for number in range(_ROUNDS)]
        self._left = max(1, math.isqrt(max(n - 1, 0)) + 1)
        self._right = max(1, -(-n // self._left))
        self._table = _sorted_hashes(n, self._keys[0]) if n <= _SMALL else None

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._n:
            raise IndexError(f"a permutation of {self._n} has no place {place}.")
        if self._table is not None:
            return int(self._table[place])
        value = self._once(int(place))
        while value >= self._n:
            value = self._once(value)
        return value

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Give the members at the places `start` to `stop` (excluded, both cut to 0 ... n): int64 [stop - start]."""
        start, stop, _ = slice(max(start, 0), max(stop, 0)).indices(self._n)
        if self._table is not None:
            return self._table[start:stop].copy()
        values = self._once_each(np.arange(start, max(start, stop), dtype=np.uint64))
        outside = np.flatnonzero(values >= self._n)
        while outside.size:
            values[outside] = self._once_each(values[outside])
            outside = outside[values[outside] >= self._n]
        return values.astype(np.int64)

    def _once(self, value: int) -> int:
        """One pass of the network over one value: what `_once_each` does, in plain integers."""
        left, right = divmod(value, self._right)
        for even, odd in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = (left + ((_mixed(right + even) >> 32) * self._left >> 32)) % self._left
            right = (right + ((_mixed(left + odd) >> 32) * self._right >> 32)) % self._right
        return left * self._right + right

    def _once_each(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(values, np.uint64(self._right))
        for even, odd in zip(self._keys[::2], self._keys[1::2], strict=True):
            _turn(left, right, even, self._left)
            _turn(right, left, odd, self._right)
        return left * np.uint64(self._right) + right


def _mixed(value: int) -> int:
    """Mix 64 bits (the finaliser of splitmix64; Steele, Lea and Flood 2014)."""
    value &= _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def _mixed_each(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Mix each of `values + key`, modulo 2**64, as numpy's unsigned arrays wrap."""
    mixed = values + np.uint64(key)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _turn(half: NDArray[np.uint64], other: NDArray[np.uint64], key: int, size: int) -> None:
    """Move `half` (in place, modulo `size`) by a hash of `other`."""
    # The upper 32 bits times the size, shifted: a number below `size` without a division.
    move = _mixed_each(other, key)
    move >>= np.uint64(32)
    move *= np.uint64(size)
    move >>= np.uint64(32)
    half += move
    np.subtract(half, np.uint64(size), out=half, where=half >= size)


def _sorted_hashes(n: int, key: int) -> NDArray[np.int64]:
    order = np.argsort(_mixed_each(np.arange(n, dtype=np.uint64), key), kind="stable")
    return order.astype(np.int64)
