"""A pipeline that ends with a transducer against a transducer from scratch, at equal processor time.

The pipeline is CTC, its alignment, the transducer along that path, and over all paths. The data are strings of two to
four recordings of the Free Spoken Digit Dataset, written as WAV files: 800 of its training part, 200 of its
validation part. Word error rates of the validation strings by greedy search, by the best checkpoint. Run it with
one thread:

    OMP_NUM_THREADS=1 python benchmarks/spoken_digit_stages.py DATA FOLDER --seeds 1 2 3
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

SIZES = {"train": 800, "val": 200}
SHARED = """
[task]
type = "speech_recognition"

[data]
train = "train.csv"
val = "val.csv"
test = "val.csv"

[data.features]
mel_bins = 40

[data.augment]
masks = "adaptive"

[model]
type = "cnn"
d_model = 96
layers = 4
subsampling = 4
subsample_channels = 16

[optimizer]
learning_rate = { schedule = "cosine", peak = 3e-3, warmup = "30 steps" }

[train]
batch_size = 16
eval_every = "1 epoch"
monitor = "val/word_error_rate"
precision = "float32"

[log]
progress = false
tensorboard = false
"""
NETWORK = '{ predictor = "stateless", d_model = 64, joint = 96 }'
STAGES = f"""
[[stage]]
name = "ctc"
train.max_duration = "6 epochs"

[[stage]]
name = "aligned"
do = "align"
model = "ctc/best"

[[stage]]
name = "path"
loss = {{ type = "framewise", head = "transducer", alignments = "aligned" }}
model.transducer = {NETWORK}
init.from = [{{ checkpoint = "ctc/best", match = "encoder.*" }}]
train.max_duration = "2 epochs"

[[stage]]
name = "transducer"
loss.type = "transducer"
model.transducer = {NETWORK}
init.from = [{{ checkpoint = "path/best" }}]
train.max_duration = "4 epochs"
"""
SCRATCH = f"""
[[stage]]
name = "transducer"
loss.type = "transducer"
model.transducer = {NETWORK}
"""


def write_strings(source: Path, folder: Path) -> None:
    """Write the strings and their manifests, the same in every run."""
    for split, count in SIZES.items():
        with (source / f"{split}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        draw = random.Random(f"digits {split}")
        (folder / split).mkdir(parents=True, exist_ok=True)
        lines = ["path,transcript"]
        for number in range(count):
            chosen = [draw.choice(rows) for _ in range(draw.randint(2, 4))]
            soundfile.write(folder / split / f"{number}.wav", *_joined(source, chosen, draw))
            lines.append(f"{split}/{number}.wav,{' '.join(row['label'] for row in chosen)}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _joined(source: Path, rows: list[dict[str, str]], draw: random.Random) -> tuple[np.ndarray, int]:
    """Recordings one after the other, with pauses between them; and their rate."""
    parts, rate = [], 8000
    for row in rows:
        wave, rate = soundfile.read(source / row["path"], dtype="int16")
        parts += [np.zeros(int(draw.uniform(0.05, 0.2) * rate), np.int16), wave]
    return np.concatenate([*parts, np.zeros(int(0.1 * rate), np.int16)]), rate


def trained(folder: Path, name: str, stages: str, seed: int, *more: str) -> tuple[float, float]:
    """Train a pipeline: the processor seconds that it took, and the word error rate of its last stage."""
    (folder / f"{name}.toml").write_text(SHARED + stages, encoding="utf-8")
    place = ["--run.dir", str(folder / "runs"), "--run.name", f"{name}-{seed}", "--run.seed", str(seed)]
    command = [sys.executable, "-m", "etude", "train", str(folder / f"{name}.toml"), *place, *more]
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own command
    after = os.times()
    done = json.loads((folder / "runs" / f"{name}-{seed}" / "transducer" / "done.json").read_text(encoding="utf-8"))
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, done["metrics"]["val/word_error_rate"]


def main() -> None:
    """Train both for each seed, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with train.csv and val.csv of the dataset")
    parser.add_argument("folder", type=Path, help="where everything is written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    write_strings(given.data, given.folder)
    one, two = (
        trained(given.folder, f"epochs{n}", SCRATCH, 1, "--train.max_duration", f"{n} epochs")[0] for n in (1, 2)
    )
    print(f"an epoch from scratch takes {two - one:.1f} s of the processor, all else {2 * one - two:.1f} s", flush=True)
    for seed in given.seeds:
        seconds, rate = trained(given.folder, "stages", STAGES, seed)
        epochs = max(1, round((seconds - (2 * one - two)) / (two - one)))
        length = ("--train.max_duration", f"{epochs} epochs")
        other_seconds, other = trained(given.folder, "scratch", SCRATCH, seed, *length)
        print(
            f"seed {seed}: stages {rate:.1%} in {seconds:.0f} s, "
            f"from scratch ({epochs} epochs) {other:.1%} in {other_seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
