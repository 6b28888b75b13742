"""Stages in Python: two trainings, a function that compares them, and nothing done twice.

Run it again, and nothing runs; change a learning rate, and that training runs again with what depends on it.
"""

from pathlib import Path

import etude

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
CONFIG = """
[task]
type = "translation"
eval_search_samples = 0

[data]
train = "train.tsv"
val = "val.tsv"

[tokenizer]
type = "word"

[model]
d_model = 32
heads = 4
encoder_layers = 1
decoder_layers = 1
feedforward = 64

[train]
max_duration = "6 epochs"
batch_size = 16
device = "cpu"

[log]
progress = false
tensorboard = false
"""


def write_data():
    """Pairs of words, to be turned round."""
    pairs = [f"{a} {b}\t{b} {a}\n" for a in WORDS for b in WORDS]
    Path("train.tsv").write_text("source\ttarget\n" + "".join(pairs))
    Path("val.tsv").write_text("source\ttarget\n" + "".join(pairs[::7]))
    Path("words.toml").write_text(CONFIG)


def better(artifacts):
    """Which of the trainings is better: an artifact of its own, which later stages could take."""
    losses = {name: one.metrics["val/loss"] for name, one in artifacts.items()}
    best = min(losses, key=losses.get)
    return {"best": best, "loss": losses[best]}


def main():
    write_data()
    pipeline = etude.Pipeline(
        [
            etude.Stage("slow", overrides={"optimizer.learning_rate": 3e-4}),
            etude.Stage("quick", overrides={"optimizer.learning_rate": 1e-2}),
            etude.Stage("better", better, inputs=["slow", "quick"]),
            etude.Stage("measured", do="evaluate", overrides={"model": "quick/best", "split": "val"}),
        ],
        config="words.toml",
        name="example",
    )
    return pipeline.run()


if __name__ == "__main__":
    for name, artifact in main().items():
        print(f"{name}: {artifact.path} {dict(artifact.metrics)}")
