"""Language-model training, tokens/s: Etude and loops written by hand in turns.

The same shape and the same batches, of Python's standard library, on all sides.

    python benchmarks/language_model_speed.py --rounds 8
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from alternating import ETUDE, Alternating, AlternatingFeed
from handwritten_language_model import Shape, Training
from measuring import Section, clock, print_section, timed_by

import etude
from etude.data.corpora.python_sources import text_corpus
from etude.data.feeds.batching import Batching
from etude.data.feeds.text_feed import TextFeed
from etude.data.files.text_files import text_files
from etude.data.files.text_source import TextCorpus
from etude.data.store.text_fitting import fit_text_tokenizer
from etude.data.store.text_prepared import prepare_texts
from etude.data.tokens.config import BpeConfig
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.flops import flops_per_token, matmul_ceiling
from etude.tasks.language_model.task import LanguageModelTask
from etude.train.step.precision import Precision

CHUNKED, PLAIN = "by hand", "by hand, torch's loss"


def batches(shape: Shape, folder: Path) -> list[Any]:
    """Batches of the corpus `python_docs`."""
    corpus = TextCorpus(text_files([text_corpus("python_docs", folder / "corpus")], "data.train", print), cache=folder)
    tokenizer = fit_text_tokenizer(BpeConfig(vocab_size=shape.vocabulary), corpus, folder)
    table = prepare_texts(corpus, tokenizer, folder).parts["all"]
    feed = TextFeed(table, Batching(seed=1, batch_size=shape.rows), block_size=shape.length)
    return [delivery.batch for delivery in itertools.islice(feed.epoch(0), 64) if len(delivery.batch) == shape.rows]


def section(*, rounds: int, steps: int, threads: int, precision: Precision) -> Section:
    torch.set_num_threads(threads)
    shape, low = Shape(), precision.dtype != torch.float32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = batches(shape, folder)

        def forever() -> Iterator[Any]:
            return itertools.cycle(found)

        def pairs() -> Iterator[Any]:
            return ((batch.inputs, batch.targets) for batch in forever())

        others = {
            CHUNKED: Training(shape, pairs(), chunked=True, autocast=low).train_steps,
            PLAIN: Training(shape, pairs(), chunked=False, autocast=low).train_steps,
        }
        data = Alternating(
            forever, others, steps=steps, rounds=rounds, work=lambda batch: batch.tokens, clock=clock(threads)
        )
        config = DecoderConfig(
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.heads,
            d_model=shape.width,
            feedforward=shape.inner,
            max_positions=shape.length,
        )
        model = Decoder(config, shape.vocabulary)
        everything = f"{data.total_steps} steps"
        etude.Trainer(
            max_duration=everything,
            save_every=everything,
            clip_grad=1.0,
            precision=precision.name,
            optimizer={"type": "adamw", "betas": [0.9, 0.95], "weight_decay": 0.1},
            learning_rate={"schedule": "cosine", "peak": 1e-3},
            device="cpu",
            run_dir=folder / "run",
            loggers=[],
            progress=False,
            say=lambda _: None,
        ).fit(LanguageModelTask(model), train=AlternatingFeed(data))
    rates = data.rates()
    flops = flops_per_token(model, shape.length) or 0.0
    share = flops * rates.median(ETUDE) / matmul_ceiling("cpu", precision.dtype)
    return Section(
        "Language-model training",
        f"Tokens/s, {shape.layers} layers of width {shape.width}, {shape.vocabulary} tokens, {shape.rows} rows of "
        f"{shape.length}, {precision.name}, {timed_by(threads)}: medians of {rounds} rounds of {steps} steps, "
        f"alternating, in one run. The goal is at least 0.97 of the loop by hand. Etude's {flops / 1e6:.0f} M "
        f"operations per token are {share:.0%} of what this machine reaches in a product of two large matrices.",
        ["loop", "tokens/s", "of the loop by hand"],
        [[side, f"{rates.median(side):,.0f}", f"{rates.ratio(side, CHUNKED):.3f}"] for side in [ETUDE, *others]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="steps of a side in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", default="auto", choices=["auto", "bfloat16", "float32"], help="of all sides")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    precision = Precision(arguments.precision, torch.device("cpu"))
    result = section(rounds=arguments.rounds, steps=arguments.steps, threads=arguments.threads, precision=precision)
    print_section(result, markdown=arguments.markdown)


if __name__ == "__main__":
    main()
