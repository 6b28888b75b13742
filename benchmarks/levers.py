"""What each lever of the hand-written translation loop is worth: all of them, and all but one, in turns.

python benchmarks/levers.py --rounds 5
python benchmarks/levers.py --only logits --threads 1
"""

import argparse
import os
from collections.abc import Callable

import torch
from handwritten_translation import Levers, Recipe, Training, read_corpus
from measuring import Interleaved, Section, clock, data_folder, print_section, timed_by

LEVERS: dict[str, Levers] = {
    "all levers": Levers(),
    "bfloat16 residual stream too": Levers(residual=True),
    "whole logits, torch's cross entropy": Levers(chunked_loss=False),
    "torch's dropout": Levers(byte_dropout=False),
    "torch's flash attention": Levers(plain_attention=False),
    "optimizer not fused": Levers(fused=False),
    "random order": Levers(buckets=False),
    "float32 (products: medium)": Levers(autocast=False),
    "float32 (products: highest)": Levers(autocast=False, matmul="highest"),
}


def taking(training: Training, steps: int) -> Callable[[], float]:
    """A side of the comparison: that many steps more."""
    return lambda: training.train_steps(steps)


def section(*, rounds: int, steps: int, threads: int, only: str | None = None) -> Section:
    """Tokens/s of the loop with all levers, and with each one released, in turns."""
    torch.set_num_threads(threads)
    recipe = Recipe()
    corpus = read_corpus(data_folder() / "multi30k", recipe.vocabulary)
    chosen = {name: levers for name, levers in LEVERS.items() if only is None or only in name or name == "all levers"}
    trainings = {name: Training(corpus, recipe, levers) for name, levers in chosen.items()}
    sides = {name: taking(training, steps) for name, training in trainings.items()}
    for side in sides.values():
        side()  # kernels for the first shapes are made here
    rates = Interleaved(sides, clock(threads)).rates(rounds)
    size = sum(p.numel() for p in trainings["all levers"].parameters)
    rows = [[name, f"{rates.median(name):,.0f}", f"{rates.ratio('all levers', name):.2f}"] for name in chosen]
    return Section(
        "The hand-written translation loop and its levers",
        f"Real target tokens/s, {size / 1e6:.1f} M parameters, Multi30k English to German, "
        f"{recipe.batch_tokens} padded "
        f"tokens per batch, {timed_by(threads)}; medians of {rounds} rounds of {steps} steps, alternating.",
        ["loop", "tokens/s", "all levers are faster by"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="steps of each side in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="measure only the lever whose name holds this")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    result = section(rounds=arguments.rounds, steps=arguments.steps, threads=arguments.threads, only=arguments.only)
    print_section(result, markdown=arguments.markdown)


if __name__ == "__main__":
    main()
