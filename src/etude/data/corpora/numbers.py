"""`numbers`: English to Spanish sentences about numbers, ordinals, dates, times, money, units, countries and languages.

The English side has its numbers in digits or in words, the Spanish side always in words. Val and test hold values that
train never has (see `values`); names occur in all three. Needs num2words and babel: `pip install 'etude[demo]'`.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final, NamedTuple

from etude.base.errors import ConfigError
from etude.base.randomness import seed_of
from etude.data.corpora.chance import Chance
from etude.data.corpora.values import SPLITS

SIZES: Final = {"train": 60_000, "val": 1_000, "test": 1_000}
WORDS_SHARE: Final = 35
"""In how many of 100 sentences English has its numbers in words."""
_PATIENCE: Final = 10_000


class Pair(NamedTuple):
    """An English sentence with its Spanish one, what kinds of phrases it has, and every value in it."""

    source: str
    target: str
    kinds: tuple[str, ...]
    values: tuple[str, ...]


def pairs(split: str, seed: int = 1, size: int | None = None) -> Iterator[Pair]:
    """Give `size` (by default `SIZES[split]`) pairs, no two with the same source.

    A smaller size is the beginning of a larger one. The same seed gives the same pairs on every machine that has the
    same versions of num2words and babel. Raises ConfigError for an unknown split, when a library is missing, and for
    a size beyond what the sentences can say.
    """
    if split not in SPLITS:
        raise ConfigError(f"The split of a corpus must be train, val or test, but is {split!r}.")
    need_libraries()
    return _distinct(split, seed, SIZES[split] if size is None else size)


def need_libraries() -> None:
    """Raise ConfigError when num2words or babel is missing."""
    missing = [name for name in ("num2words", "babel") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The corpus `numbers` needs {' and '.join(missing)}; install with: pip install 'etude[demo]'."
        )


def _distinct(split: str, seed: int, size: int) -> Iterator[Pair]:
    seen: set[str] = set()
    index = repeated = 0
    while len(seen) < size:
        pair = _pair(split, Chance(seed_of(seed, "numbers", split, index)))
        index += 1
        if pair.source not in seen:
            repeated = 0
            seen.add(pair.source)
            yield pair
            continue
        repeated += 1
        if repeated > _PATIENCE:
            raise ConfigError(f"The corpus `numbers` has no {size:,} different pairs for {split}; ask for fewer.")


def _pair(split: str, chance: Chance) -> Pair:
    from etude.data.corpora.phrase import Phrase, Scene
    from etude.data.corpora.phrases import SLOTS  # these need the optional libraries
    from etude.data.corpora.sentences import contract, join, sentences

    scene = Scene(chance, split, words=chance.percent(WORDS_SHARE))
    sentence = chance.pick(sentences())
    filled: dict[str, Phrase] = {}
    for slot, maker in sentence.slots:
        phrase = SLOTS[maker](scene)
        while phrase in filled.values():
            phrase = SLOTS[maker](scene)
        filled[slot] = phrase
    phrases = list(filled.values())
    return Pair(
        join(sentence.english, {slot: phrase.english for slot, phrase in filled.items()}),
        contract(join(sentence.spanish, {slot: phrase.spanish for slot, phrase in filled.items()})),
        tuple(phrase.kind for phrase in phrases),
        tuple(value for phrase in phrases for value in phrase.values),
    )
