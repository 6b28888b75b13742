"""A tiny corpus of tones for speech runs: letters are tones, words end with a pause."""

import numpy as np
import soundfile

RATE = 8000
TONES = {"a": 400.0, "b": 900.0, "c": 1700.0}


def spoken(text, seed=0, rate=RATE):
    """Give a wave in which each letter is a tone of about 80 ms, and a space is silence."""
    draw = np.random.default_rng(seed)
    pieces = [np.zeros(int(0.03 * rate))]
    for letter in text:
        time = np.arange(int(rate * draw.uniform(0.07, 0.09))) / rate
        tone = np.sin(2 * np.pi * TONES[letter] * time) if letter in TONES else 0 * time
        pieces += [0.3 * tone * np.hanning(len(time)), np.zeros(int(0.03 * rate))]
    wave = np.concatenate(pieces)
    return (wave + 1e-3 * draw.normal(size=len(wave))).astype(np.float32)


def write_corpus(folder, name, texts, seed=0):
    """Write recordings of texts and a manifest of them, `NAME.csv`."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    lines = ["path,transcript,speaker"]
    for number, text in enumerate(texts):
        soundfile.write(folder / name / f"{number}.wav", spoken(text, 100 * seed + number), RATE)
        lines.append(f"{name}/{number}.wav,{text},s{number % 2}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


TRAINED = ["ab c", "b", "cab", "bb a", "ca", "acb", "a a", "bca b", "c", "abc", "cc", "ba"]
HELD = ["ac", "b ca", "cb a"]
CONFIG = """
[task]
type = "speech_recognition"
[data]
train = "train.csv"
val = "val.csv"
test = "val.csv"
[data.features]
mel_bins = 20
[model]
type = "blstm"
d_model = 24
layers = 1
dropout = 0.1
subsampling = 2
[optimizer]
learning_rate = 0.02
[train]
max_duration = "24 steps"
eval_every = "6 steps"
save_every = "6 steps"
log_every = "1 step"
batch_size = 4
keep_last = 9
device = "cpu"
[log]
progress = false
tensorboard = false
"""


def write_place(folder):
    """Write a whole corpus and `small.toml`."""
    write_corpus(folder, "train", TRAINED)
    write_corpus(folder, "val", HELD, seed=1)
    (folder / "small.toml").write_text(CONFIG)
