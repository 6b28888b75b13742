"""Translation training, tokens/s: Etude and the best hand-written loop in turns.

python benchmarks/translation_speed.py --rounds 10
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import translator
from alternating import ETUDE, Alternating, AlternatingFeed
from handwritten_translation import Levers, Recipe, Training, read_corpus
from measuring import Section, clock, data_folder, print_section, timed_by

BY_HAND = "by hand"


def section(*, rounds: int, steps: int, threads: int) -> Section:
    torch.set_num_threads(threads)
    recipe = Recipe()
    corpus = read_corpus(data_folder() / "multi30k", recipe.vocabulary)
    others = {
        BY_HAND: Training(corpus, recipe).train_steps,
        "by hand, torch's loss": Training(corpus, recipe, Levers(chunked_loss=False)).train_steps,
    }
    feed = translator.feed(corpus, recipe)

    def batches() -> Iterator[Any]:
        return (delivery.batch for epoch in itertools.count() for delivery in feed.epoch(epoch))

    data = Alternating(
        batches, others, steps=steps, rounds=rounds, work=lambda batch: batch.tokens, clock=clock(threads)
    )
    with tempfile.TemporaryDirectory() as folder:
        everything = f"{data.total_steps} steps"
        trainer = translator.trainer(
            recipe, max_duration=everything, save_every=everything, run_dir=Path(folder) / "run"
        )
        trainer.fit(translator.task(corpus, recipe), train=AlternatingFeed(data))
    rates = data.rates()
    return Section(
        "Translation training",
        f"Real target tokens/s, Multi30k English to German, {recipe.layers} + {recipe.layers} layers of width "
        f"{recipe.width}, {recipe.batch_tokens} padded tokens per batch, bfloat16 autocast, "
        f"{timed_by(threads)}: medians of "
        f"{rounds} rounds of {steps} steps, alternating, in one run. The goal is at least 0.97 of the loop by hand.",
        ["loop", "tokens/s", "of the loop by hand"],
        [[side, f"{rates.median(side):,.0f}", f"{rates.ratio(side, BY_HAND):.3f}"] for side in [ETUDE, *others]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="steps of a side in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    result = section(rounds=arguments.rounds, steps=arguments.steps, threads=arguments.threads)
    print_section(result, markdown=arguments.markdown)


if __name__ == "__main__":
    main()
