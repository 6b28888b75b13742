"""The recipes of speech and sounds reach their figures, on recordings that were never heard. Long: an hour of one core.

Processor minutes are printed, since seconds on a shared machine say little.
"""

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import etude
from etude.metrics.edit_distance import WordErrorRate

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("ETUDE_DATA", ROOT.parent / "shared" / "data")) / "spoken_digits"
RATE = 8000

pytestmark = pytest.mark.acceptance
on_digits = pytest.mark.skipif(not DATA.is_dir(), reason=f"spoken_digits is not at {DATA}")


def trained(recipe, folder, *words):
    """Train a recipe by the shell's command on one thread; its last validation, and the processor's minutes."""
    command = [sys.executable, "-m", "etude", "train", str(ROOT / "recipes" / recipe), "--run.dir", str(folder), *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    minutes = (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) / 60
    lines = (folder / Path(recipe).stem / "metrics.jsonl").read_text().splitlines()
    row = next(row for row in map(json.loads, reversed(lines)) if "val/loss" in row)
    return row, minutes


def on_ours(recipe, folder, *words):
    splits = [f"--data.{split}={DATA / f'{split}.csv'}" for split in ("train", "val")]
    return trained(recipe, folder, *splits, *words)


def tell(text):
    print(text)  # noqa: T201 - the figure of the closing note


@pytest.mark.parametrize(
    ("recipe", "metric", "most"),
    [("speech_ctc.toml", "character", 0.02), ("speech_transducer.toml", "character", 0.05)],
)
def test_generated_letters_are_transcribed(recipe, metric, most, tmp_path):
    row, minutes = trained(recipe, tmp_path)

    rate = row[f"val/{metric}_error_rate"]
    tell(f"{recipe}: {metric} error rate {rate:.2%} after {minutes:.1f} processor minutes")
    assert rate < most


def test_morse_in_noise_is_read(tmp_path):
    row, minutes = trained("morse.toml", tmp_path)

    rate = row["val/character_error_rate"]
    tell(f"morse.toml: character error rate {rate:.2%} after {minutes:.1f} processor minutes")
    assert rate < 0.05


def test_kinds_of_sounds_are_told_apart(tmp_path):
    row, minutes = trained("audio_classification.toml", tmp_path)

    tell(f"audio_classification: accuracy {row['val/accuracy']:.2%} after {minutes:.1f} processor minutes")
    assert row["val/accuracy"] > 0.9


def recordings(split):
    with (DATA / f"{split}.csv").open() as file:
        return list(csv.DictReader(file))


def wave_of(row):
    return soundfile.read(DATA / row["path"], dtype="float32")[0]


def written(folder, waves):
    folder.mkdir()
    for number, wave in enumerate(waves):
        soundfile.write(folder / f"{number}.wav", wave, RATE, subtype="FLOAT")
    return [str(folder / f"{number}.wav") for number in range(len(waves))]


@on_digits
def test_spoken_digits_are_told_apart_at_any_level(tmp_path):
    row, minutes = on_ours("spoken_digits.toml", tmp_path)
    run, held = etude.Run(tmp_path / "spoken_digits"), recordings("val")
    right = {}
    for name, gain in (("as recorded", 1.0), ("100 times quieter", 0.01), ("10 times louder", 10.0)):
        paths = written(tmp_path / name.replace(" ", "-"), [gain * wave_of(one) for one in held])
        right[name] = np.mean([said == one["label"] for said, one in zip(run.predict(paths), held, strict=True)])

    tell(f"spoken_digits: {row['val/accuracy']:.2%} after {minutes:.1f} processor minutes; {right}")
    assert right["as recorded"] >= 0.975
    assert max(right.values()) - min(right.values()) <= 0.01


def joined(noisy, seed, count=300):
    """Connected digits by the definition of the benchmark: waves and what is said."""
    draw, rows = np.random.default_rng(seed), recordings("val")
    waves, texts = [], []
    for _ in range(count):
        chosen = [rows[place] for place in draw.integers(0, len(rows), draw.integers(3, 8))]
        pieces = []
        for row in chosen:
            wave = wave_of(row)
            level = 0.05 / np.sqrt(np.mean(wave**2)) if noisy else 1.0
            pieces += [np.zeros(int(draw.uniform(0.05, 0.2) * RATE), np.float32), level * wave]
        wave = np.concatenate([*pieces, np.zeros(int(draw.uniform(0.05, 0.2) * RATE), np.float32)])
        waves.append(with_noise(wave, draw, draw.uniform(5, 25) if noisy else None).astype(np.float32))
        texts.append(" ".join(row["label"] for row in chosen))
    return waves, texts


def with_noise(wave, draw, decibels):
    """Hiss at -70 dBFS or, so many decibels below the wave, noise between white and pink."""
    spectrum = np.fft.rfft(draw.normal(size=len(wave)))
    colour = 0.0 if decibels is None else draw.uniform(0, 1)
    noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** (colour / 2), len(wave))
    level = 10 ** (-70 / 20) if decibels is None else np.sqrt(np.mean(wave**2)) * 10 ** (-decibels / 20)
    return wave + noise * level / np.sqrt(np.mean(noise**2))


@on_digits
@pytest.mark.parametrize(
    ("recipe", "plain", "noisy"),
    [("spoken_digits_ctc.toml", 0.05, 0.12), ("spoken_digits_transducer.toml", 0.07, None)],
)
def test_connected_digits_are_transcribed(recipe, plain, noisy, tmp_path):
    _, minutes = on_ours(recipe, tmp_path)
    run = etude.Run(tmp_path / Path(recipe).stem)
    rates = {}
    for kind in (False, True):
        waves, texts = joined(kind, seed=1)
        metric = WordErrorRate()
        metric.update(run.predict(written(tmp_path / f"noisy-{kind}", waves)), texts)
        rates["noisy" if kind else "plain"] = metric.compute()

    tell(f"{recipe}: word error rates {rates} after {minutes:.1f} processor minutes")
    assert rates["plain"] < plain
    assert noisy is None or rates["noisy"] < noisy
