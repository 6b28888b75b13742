"""How long a save keeps training waiting.

The translator trains on one batch over and over, so that every step is alike, and saves every few steps. Counted are
the time between the steps around a save, and everything that the steps up to the next save took longer.

    python benchmarks/save_cost.py --saves 8
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import translator
from alternating import AlternatingFeed
from handwritten_translation import Recipe, read_corpus
from measuring import Section, data_folder, print_section


class Watched:
    """One batch, `total_steps` times, and when each was asked for."""

    def __init__(self, batch: Any, total_steps: int) -> None:
        self._batch = batch
        self.total_steps = total_steps
        self.asked: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.total_steps):
            self.asked.append(time.perf_counter())
            yield self._batch

    def seconds(self) -> list[float]:
        """Of each step but the last, with whatever came before the next."""
        return [after - before for before, after in zip(self.asked, self.asked[1:], strict=False)]


def section(*, saves: int, every: int, threads: int) -> Section:
    torch.set_num_threads(threads)
    recipe = Recipe()
    corpus = read_corpus(data_folder() / "multi30k", recipe.vocabulary)
    batch = next(iter(translator.feed(corpus, recipe).epoch(0))).batch
    watched = Watched(batch, every * (saves + 1))
    task = translator.task(corpus, recipe)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        trainer = translator.trainer(
            recipe,
            max_duration=f"{watched.total_steps} steps",
            save_every=f"{every} steps",
            run_dir=Path(folder) / "run",
        )
        checkpoint = trainer.fit(task, train=AlternatingFeed(watched)).last
        size = sum(file.stat().st_size for file in checkpoint.iterdir()) if checkpoint is not None else 0
    seconds = watched.seconds()
    plain = statistics.median(seconds)
    periods = [seconds[start - 1 : start - 1 + every] for start in range(every, every * saves + 1, every)]
    stall = statistics.median(period[0] - plain for period in periods)
    whole = statistics.median(sum(period) - plain * len(period) for period in periods)
    rows = [
        ["the step that saves takes longer by", f"{stall * 1e3:.0f} ms", f"{stall / plain:.2f}"],
        ["it and all steps up to the next save take longer by", f"{whole * 1e3:.0f} ms", f"{whole / plain:.2f}"],
    ]
    return Section(
        "Cost of a save",
        f"A checkpoint of {size / 1e6:.0f} MB, steps of {plain * 1e3:.0f} ms, {threads} threads: medians of "
        f"{saves} saves, one "
        f"every {every} steps. The goal is under two steps.",
        ["what", "time", "in steps"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--every", type=int, default=12, help="steps from one save to the next")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    print_section(
        section(saves=arguments.saves, every=arguments.every, threads=arguments.threads), markdown=arguments.markdown
    )


if __name__ == "__main__":
    main()
