"""How quickly text is tokenised, and how much memory that takes, against the size of the text.

A text is written (words of an invented vocabulary, by Zipf's law, in lines and paragraphs), a tokenizer is trained on
it, and it is prepared in a fresh process. Counted is the anonymous memory of that process and of those that it starts,
all together (what is mapped from a file can be given back at any time). Linux only.

    python benchmarks/tokenising.py --sizes 100 1000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
from measuring import Section, machine, print_section

MEGA = 1_000_000
WORDS = 50_000
LETTERS = np.array(list("etaoinshrdlcumwfgypbvk"))


def anonymous(pid: int) -> int:
    """Bytes of a process that no file backs, and of all that it has started."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").split("\n")
        own = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:  # it has just ended
        return 0
    return own + sum(anonymous(int(child)) for child in children)


class Peak:
    """The most memory while the block ran, asked every 20 ms."""

    def __enter__(self) -> Self:
        self.most = 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, anonymous(os.getpid()))

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()


def write_text(path: Path, size: int) -> None:
    """A text of about `size` bytes."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 11, WORDS)
    words = ["".join(rng.choice(LETTERS, length)) for length in lengths]
    chances = 1 / np.arange(1, WORDS + 1)
    cumulated = np.cumsum(chances / chances.sum())
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            drawn = np.minimum(np.searchsorted(cumulated, rng.random(20_000)), WORDS - 1).tolist()
            lines = (" ".join(words[n] for n in drawn[at : at + 12]) for at in range(0, len(drawn), 12))
            text = ".\n".join(lines) + ".\n\n"
            written += len(text)
            file.write(text)


def prepare(path: Path, cache: Path, processes: int) -> None:
    """Train a tokenizer, tokenise, and print what that took."""
    from etude.data.files.text_source import open_texts
    from etude.data.store.text_fitting import fit_text_tokenizer
    from etude.data.store.text_prepared import prepare_texts
    from etude.data.tokens.config import BpeConfig

    corpus = open_texts(path, cache=cache)
    with Peak() as training:
        begun = time.perf_counter()
        tokenizer = fit_text_tokenizer(BpeConfig(vocab_size=8000), corpus, cache)
        trained = time.perf_counter() - begun
    with Peak() as tokenising:
        begun = time.perf_counter()
        table = prepare_texts(corpus, tokenizer, cache, processes=processes).parts["all"]
        seconds = time.perf_counter() - begun
    facts = {"trained": trained, "training": training.most, "seconds": seconds, "tokenising": tokenising.most}
    print(json.dumps(facts | {"tokens": table.targets, "bytes": table.bytes}))


def measured(size: int, processes: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        write_text(path, size * MEGA)
        command = [sys.executable, __file__, "--prepare", str(path), "--processes", str(processes)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - this script
    facts = json.loads(out)
    rate = facts["bytes"] / MEGA / facts["seconds"]
    memory = [f"{facts[name] / 2**20:,.0f}" for name in ("tokenising", "training")]
    return [
        f"{facts['bytes'] / MEGA:,.0f}",
        str(processes),
        f"{rate:.1f}",
        memory[0],
        f"{facts['trained']:.0f}",
        memory[1],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000], help="sizes of the text, in MB")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        prepare(arguments.prepare, arguments.prepare.parent / "cache", arguments.processes)
        return
    rows = [measured(size, arguments.processes) for size in arguments.sizes]
    head = ["MB of text", "processes", "MB/s tokenised", "memory (MiB)", "tokenizer (s)", "its memory (MiB)"]
    text = (
        "A tokenizer of 8,000 pieces is trained (on at most 134 MB), and the text tokenised into shards. "
        f"Memory is that of all processes together. {machine()}"
    )
    print_section(Section("Tokenising", text, head, rows), markdown=arguments.markdown)


if __name__ == "__main__":
    main()
