"""The recipes of language models reach their figures, on documents that were never seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("ETUDE_DATA", ROOT.parent / "shared" / "data")) / "tiny_shakespeare"

pytestmark = pytest.mark.acceptance


def trained(recipe, folder, *words):
    """Train a recipe by the shell's command; what validation measured last, and the minutes of training."""
    command = [sys.executable, "-m", "etude", "train", str(ROOT / "recipes" / recipe), "--run.dir", str(folder), *words]
    subprocess.run(command, check=True)
    lines = (folder / Path(recipe).stem / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    seconds = max(row["time/seconds"] for row in rows if "time/seconds" in row)
    return next(row for row in reversed(rows) if "val/loss" in row), seconds / 60


def completion(folder, prompt):
    done = subprocess.run(
        [sys.executable, "-m", "etude", "predict", str(folder), "--prompt", prompt, "--json", "--max-tokens", "100"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)["prediction"]


def test_the_language_model_learns_pythons_library_in_six_minutes(tmp_path):
    row, minutes = trained("language_model.toml", tmp_path)
    text = completion(tmp_path / "language_model", "import os\n\n\ndef read_lines(path):\n    ")

    print(f"language_model: {row['val/bits_per_byte']:.3f} bits a byte after {minutes:.1f} minutes\n{text}")  # noqa: T201 - the figure of the closing note
    assert row["val/bits_per_byte"] < 1.45
    assert minutes < 6
    assert "\n    " in text  # indented, as the corpus is


def test_the_lstm_learns_pythons_documentation(tmp_path):
    row, minutes = trained("lstm_language_model.toml", tmp_path)

    print(f"lstm_language_model: {row['val/bits_per_byte']:.3f} bits a byte after {minutes:.1f} minutes")  # noqa: T201 - as above
    assert row["val/bits_per_byte"] < 2.3
    assert minutes < 6


@pytest.mark.skipif(not DATA.is_dir(), reason=f"tiny_shakespeare is not at {DATA}")
@pytest.mark.parametrize(("recipe", "loss"), [("shakespeare_char.toml", 1.75), ("shakespeare_char_best.toml", 1.55)])
def test_shakespeare_reaches_its_loss(recipe, loss, tmp_path):
    row, minutes = trained(recipe, tmp_path, "--data.train", str(DATA))

    print(f"{recipe}: val loss {row['val/loss']:.3f} after {minutes:.1f} minutes")  # noqa: T201 - as above
    assert row["val/loss"] <= loss
