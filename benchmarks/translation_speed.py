"""Translation training, tokens/s: Etude and the best hand-written loop in turns, in one process or each in its own.

python benchmarks/translation_speed.py --rounds 10
python benchmarks/translation_speed.py --rounds 10 --apart
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import translator
from alternating import ETUDE, Alternating, AlternatingFeed
from handwritten_translation import Corpus, Levers, Recipe, Training, read_corpus
from measuring import Measured, Section, clock, data_folder, print_section, timed_by

from etude.train.step.precision import Precision

BY_HAND, PLAIN = "by hand", "by hand, torch's loss"
TURN = "turn"


def corpus_of(recipe: Recipe) -> Corpus:
    return read_corpus(data_folder() / "multi30k", recipe.vocabulary)


def by_hand(side: str, corpus: Corpus, recipe: Recipe, precision: Precision) -> Callable[[int], int]:
    """A hand-written loop: it takes so many steps, and says how many targets they had."""
    levers = Levers(autocast=precision.dtype != torch.float32, chunked_loss=side == BY_HAND)
    return Training(corpus, recipe, levers).train_steps


def measured(
    others: Mapping[str, Callable[[int], float]], corpus: Corpus, recipe: Recipe, asked: argparse.Namespace
) -> Measured:
    """Etude's loop with the others' blocks between its own."""
    feed = translator.feed(corpus, recipe)

    def batches() -> Iterator[Any]:
        return (delivery.batch for epoch in itertools.count() for delivery in feed.epoch(epoch))

    data = Alternating(
        batches,
        others,
        steps=asked.steps,
        rounds=asked.rounds,
        work=lambda batch: batch.tokens,
        clock=clock(asked.threads),
    )
    with tempfile.TemporaryDirectory() as folder:
        everything = f"{data.total_steps} steps"
        trainer = translator.trainer(
            recipe,
            max_duration=everything,
            save_every=everything,
            precision=asked.precision,
            run_dir=Path(folder) / "run",
        )
        trainer.fit(translator.task(corpus, recipe), train=AlternatingFeed(data))
    return data.rates()


def in_one_process(asked: argparse.Namespace) -> Measured:
    torch.set_num_threads(asked.threads)
    recipe = Recipe()
    corpus = corpus_of(recipe)
    others = {side: by_hand(side, corpus, recipe, precision_of(asked)) for side in (BY_HAND, PLAIN)}
    return measured(others, corpus, recipe, asked)


def side_of_its_own(side: str, asked: argparse.Namespace) -> None:
    """One side in this process: after each block it says so and waits for its next turn; at the end, its rates."""
    torch.set_num_threads(asked.threads)
    recipe, timer = Recipe(), clock(asked.threads)
    corpus = corpus_of(recipe)
    rates: list[float] = []
    if side == ETUDE:
        rates += measured({TURN: turn}, corpus, recipe, asked).values[ETUDE]
    else:
        train_steps = by_hand(side, corpus, recipe, precision_of(asked))
        for block in range(asked.rounds + 1):
            start = timer()
            rate = train_steps(asked.steps) / (timer() - start)
            rates += [rate] if block else []  # the first one warms up
            turn(asked.steps)
    print(json.dumps(rates), flush=True)


def turn(steps: int) -> float:
    """Say that a block is done, and wait until another may begin."""
    print(TURN, flush=True)
    sys.stdin.readline()
    return steps


def in_processes(asked: argparse.Namespace) -> Measured:
    """Each side warms up alone; then one of them runs at a time."""
    sides: dict[str, subprocess.Popen[str]] = {}
    options = [f"--{name}={getattr(asked, name)}" for name in ("rounds", "steps", "threads", "precision")]
    for side in (ETUDE, BY_HAND, PLAIN):
        sides[side] = subprocess.Popen(  # noqa: S603 - this script
            [sys.executable, __file__, "--side", side, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        heard(sides[side])
    for number in range(asked.rounds):
        for side in list(sides) if number % 2 else list(reversed(sides)):
            go_on(sides[side])
            heard(sides[side])
    values = {}
    for side, process in sides.items():
        go_on(process)
        values[side] = json.loads(heard(process))
    return Measured(values)


def heard(process: "subprocess.Popen[str]") -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("A side ended before its turn; what it wrote stands above.")
    return line


def go_on(process: "subprocess.Popen[str]") -> None:
    if process.stdin:
        process.stdin.write("\n")
        process.stdin.flush()


def precision_of(asked: argparse.Namespace) -> Precision:
    return Precision(asked.precision, torch.device("cpu"))


def section(rates: Measured, asked: argparse.Namespace) -> Section:
    recipe = Recipe()
    where = "each side in a process of its own, one running at a time" if asked.apart else "in one run"
    return Section(
        "Translation training, apart" if asked.apart else "Translation training",
        f"Real target tokens/s, Multi30k English to German, {recipe.layers} + {recipe.layers} layers of width "
        f"{recipe.width}, {recipe.batch_tokens} padded tokens per batch, {precision_of(asked).name}, "
        f"{timed_by(asked.threads)}: medians of {asked.rounds} rounds of {asked.steps} steps, alternating, {where}. "
        "The goal is at least 0.97 of the loop by hand.",
        ["loop", "tokens/s", "of the loop by hand"],
        [[side, f"{rates.median(side):,.0f}", f"{rates.ratio(side, BY_HAND):.3f}"] for side in (ETUDE, BY_HAND, PLAIN)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="steps of a side in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", default="auto", choices=["auto", "bfloat16", "float32"], help="of all sides")
    parser.add_argument("--apart", action="store_true", help="each side in a process of its own")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    if asked.side:
        side_of_its_own(asked.side, asked)
        return
    rates = in_processes(asked) if asked.apart else in_one_process(asked)
    print_section(section(rates, asked), markdown=asked.markdown)


if __name__ == "__main__":
    main()
