"""What a text costs in bits a byte without a neural network: xz -9, and a trigram model of the same tokens.

    python benchmarks/text_baselines.py recipes/language_model.toml

xz is told the validation text alone, and behind the training text, of which it remembers the last 64 MiB. The trigram
model is Kneser and Ney's, interpolated, with a discount of 0.75 (Chen and Goodman 1999), of the tokens that the
recipe's tokenizer learns from its training split.
"""

import argparse
import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from measuring import Section, print_section

from etude.data.store.text_table import TextTable
from etude.tasks.config import load_config
from etude.tasks.language_model.config import TextRun
from etude.tasks.language_model.data import Texts, prepare

DISCOUNT = 0.75


def text_of(texts: Texts, split: str) -> bytes:
    """The documents of a split, one after the other."""
    decode = texts.tokenizer.decode
    return "".join(decode(t.ids(n).tolist()) for t in texts.splits[split].tables for n in range(len(t))).encode()


def tokens_of(tables: Sequence[TextTable]) -> list[int]:
    """The stream of a split, documents parted by their ends."""
    return [token for table in tables for token in table.read(0, table.targets + 1).tolist()]


class Trigram:
    """Interpolated Kneser-Ney of order three."""

    def __init__(self, tokens: Sequence[int], vocabulary: int) -> None:
        self.threes = Counter(zip(tokens, tokens[1:], tokens[2:], strict=False))
        self.vocabulary = vocabulary
        self.context: Counter[tuple[int, int]] = Counter()
        self.follow: Counter[tuple[int, int]] = Counter()
        self.twos: Counter[tuple[int, int]] = Counter()
        for (a, b, c), count in self.threes.items():
            self.context[a, b] += count
            self.follow[a, b] += 1
            self.twos[b, c] += 1  # of how many different words it came behind
        self.middle: Counter[int] = Counter()
        self.spread: Counter[int] = Counter()
        self.ones: Counter[int] = Counter()
        for (b, c), count in self.twos.items():
            self.middle[b] += count
            self.spread[b] += 1
            self.ones[c] += 1
        self.pairs = len(self.twos)

    def probability(self, a: int, b: int, c: int) -> float:
        known = len(self.ones)
        one = max(self.ones[c] - DISCOUNT, 0) / self.pairs + DISCOUNT * known / self.pairs / self.vocabulary
        two = one
        if self.middle[b]:
            two = max(self.twos[b, c] - DISCOUNT, 0) / self.middle[b] + DISCOUNT * self.spread[b] / self.middle[b] * one
        seen = self.context[a, b]
        if not seen:
            return two
        return max(self.threes[a, b, c] - DISCOUNT, 0) / seen + DISCOUNT * self.follow[a, b] / seen * two

    def bits(self, tokens: Sequence[int]) -> float:
        """Bits of all tokens but the first two."""
        found: dict[tuple[int, int, int], float] = defaultdict(float)
        total = 0.0
        for key in zip(tokens, tokens[1:], tokens[2:], strict=False):
            if key not in found:
                found[key] = -math.log2(self.probability(*key))
            total += found[key]
        return total


def compressed(content: bytes) -> int:
    return len(lzma.compress(content, preset=9))


def section(recipe: Path) -> Section:
    config = load_config(recipe).config
    assert isinstance(config, TextRun)
    texts = prepare(config, ["train", "val"], print)
    vocabulary = texts.processor.tokenizer.size
    train, val = (text_of(texts, split) for split in ("train", "val"))
    behind = compressed(train + val) - compressed(train)
    model = Trigram(tokens_of(texts.splits["train"].tables), vocabulary)
    trigram = model.bits(tokens_of(texts.splits["val"].tables))
    rows = [
        ["xz -9, the validation text alone", f"{8 * compressed(val) / len(val):.3f}"],
        ["xz -9, after the training text", f"{8 * behind / len(val):.3f}"],
        ["trigram model of the same tokens", f"{trigram / len(val):.3f}"],
    ]
    return Section(
        "Bits per byte without a network",
        f"{recipe.name}: {len(train) / 1e6:.1f} MB for training, {len(val) / 1e6:.2f} MB of unseen "
        f"documents, {vocabulary:,} tokens.",
        ["model", "bits per byte"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("recipes/language_model.toml"))
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(section(arguments.recipe), markdown=arguments.markdown)


if __name__ == "__main__":
    main()
