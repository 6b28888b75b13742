"""Memory of a training process against the size of its corpus.

Two ways: a prepared corpus, mapped from disk, whose pairs are generated here, and computed pairs, which take no room
themselves. Each size is a fresh process that takes batches from all over the corpus; counted is its anonymous memory
(what is mapped from a file can be given back at any time). Linux only.

    python benchmarks/memory.py --sizes 100000 1000000 10000000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from itertools import islice
from pathlib import Path
from typing import Any, Self

from measuring import Section, print_section

BATCHES = 300
WORDS = [f"word{number}" for number in range(50)]


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This benchmark reads /proc/self/status, which is there on Linux alone.")


class Peak:
    """The most anonymous memory while the block ran, asked every 5 ms."""

    def __enter__(self) -> Self:
        self.most = anonymous()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        self.most = max(self.most, anonymous())


def write_pairs(path: Path, size: int) -> None:
    """A TSV of `size` pairs, all different."""
    with path.open("w", encoding="utf-8") as file:
        file.write("source\ttarget\n")
        for start in range(0, size, 10_000):
            rows = range(start, min(size, start + 10_000))
            file.writelines(
                f"{number} {' '.join(WORDS[number % 40 : number % 40 + number % 7 + 2])}\t"
                f"{' '.join(WORDS[number % 41 : number % 41 + number % 8 + 2])} {number}\n"
                for number in rows
            )


def prepared(size: int, folder: Path) -> Any:
    """A table in characters of that many pairs: prepared when it is not there yet."""
    from etude.data.files.parallel import open_pairs
    from etude.data.store.pairs import prepare_pairs
    from etude.data.tokens.config import CharConfig
    from etude.data.tokens.training import train_tokenizer

    path = folder / f"{size}.tsv"
    if not path.exists():
        write_pairs(path, size)
    source = open_pairs(path, cache=folder)
    tokenizer = train_tokenizer(CharConfig(), iter(["0123456789 ", *WORDS]))
    return prepare_pairs(source, {"source": tokenizer, "target": tokenizer}, folder, processes=1)


def child(kind: str, size: int, folder: Path) -> None:
    """Print the peaks of preparing (or opening) and of taking batches."""
    import torch

    from etude.data.feeds.batching import Batching
    from etude.data.feeds.pairs import pair_feed
    from etude.data.store.computed import ComputedTable

    torch.set_num_threads(1)
    with Peak() as opening:
        table = ComputedTable(size) if kind == "computed" else prepared(size, folder)
    with Peak() as training:
        feed = pair_feed(table, Batching(seed=1, batch_tokens=4096))
        for epoch in range(2):
            for _ in islice(feed.epoch(epoch), BATCHES):
                pass
    print(json.dumps({"opening": opening.most, "training": training.most}))


def peaks(kind: str, size: int, folder: Path) -> dict[str, int]:
    """Of a fresh process."""
    command = [sys.executable, __file__, "--child", kind, str(size), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this very script
    return dict(json.loads(done.stdout.splitlines()[-1]))


def section(*, sizes: list[int]) -> Section:
    rows = []
    first: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            cells = [f"{size:,}"]
            for kind in ("prepared again", "prepared", "computed"):
                folder = Path(name)
                measured = peaks(kind.split()[0], size, folder)
                key = "opening" if kind == "prepared again" else "training"
                begun = first.setdefault(kind, measured)
                cells.append(f"{measured[key] / 1e6:.0f} MB ({measured[key] / begun[key]:.2f})")
            rows.append(cells)
    return Section(
        "Memory against the size of the corpus",
        f"Peak anonymous memory of a fresh process that takes 2 x {BATCHES} batches of 4,096 tokens (in brackets: over "
        "that of the smallest corpus). The goal is constant within 10 %.",
        ["pairs", "preparing", "training, prepared", "training, computed pairs"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--child", nargs=3, metavar=("KIND", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.child:
        kind, size, folder = arguments.child
        child(kind, int(size), Path(folder))
    else:
        print_section(section(sizes=arguments.sizes), markdown=arguments.markdown)


if __name__ == "__main__":
    main()
