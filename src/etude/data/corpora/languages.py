"""`number_languages`: numbers in words, each with its language as the label: which of seven it is.

Val and test hold numbers that train never has (see `values`). Needs num2words: `pip install 'etude[demo]'`.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from etude.base.errors import ConfigError
from etude.base.randomness import seed_of
from etude.data.corpora.chance import Chance
from etude.data.corpora.values import Number, number, spread

LANGUAGES: Final = {
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "portuguese": "pt",
    "spanish": "es",
}
"""What num2words calls them, by label."""
SIZES: Final = {"train": 4_000, "val": 500, "test": 500}
LARGEST: Final = 999_999
_PATIENCE: Final = 10_000


def labelled_numbers(split: str, seed: int, size: int) -> Iterator[tuple[str, str]]:
    """Give `size` numbers in words with their language, no text twice; a smaller size is the beginning of a larger.

    Raises ConfigError when num2words is missing, and for a size beyond what the split has numbers for.
    """
    need_libraries()
    seen: set[str] = set()
    index = repeated = 0
    while len(seen) < size:
        row = _row(split, Chance(seed_of(seed, "number_languages", split, index)))
        index += 1
        repeated = repeated + 1 if row[0] in seen else 0
        if repeated > _PATIENCE:
            raise ConfigError(f"The corpus `number_languages` has no {size:,} different rows for {split}.")
        if not repeated:
            seen.add(row[0])
            yield row


def need_libraries() -> None:
    """Raise ConfigError when num2words is missing."""
    if find_spec("num2words") is None:
        raise ConfigError("The corpus `number_languages` needs num2words; install with: pip install 'etude[demo]'.")


def _row(split: str, chance: Chance) -> tuple[str, str]:
    from num2words import num2words  # optional

    label = chance.pick(sorted(LANGUAGES))
    drawn = number(chance, split, lambda chance: Number(spread(chance, 1, LARGEST)))
    return str(num2words(drawn.whole, lang=LANGUAGES[label])), label
