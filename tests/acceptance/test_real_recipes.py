"""Recipes on real data reach their figures, killed on the way. Long: some twenty minutes on two quiet cores."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("ETUDE_DATA", ROOT.parent / "shared" / "data")) / "multi30k"
KILLED_AFTER = (200, 200)
"""Seconds after which the training process is killed, and trained again by the same command."""
WANTED_BLEU, WITHIN_SECONDS = 32.0, 30 * 60

pytestmark = pytest.mark.acceptance


def pair(split):
    return f'{{source = "{DATA / split}.en", target = "{DATA / split}.de"}}'


@pytest.mark.skipif(not DATA.is_dir(), reason=f"Multi30k is not at {DATA}")
def test_multi30k_reaches_its_bleu_within_half_an_hour_of_training(tmp_path):
    etude = [sys.executable, "-m", "etude"]
    train = [*etude, "train", str(ROOT / "recipes" / "multi30k.toml"), "--run.dir", str(tmp_path)]
    train += ["--data.train", pair("train"), "--data.val", pair("val")]

    for seconds in KILLED_AFTER:
        process = subprocess.Popen(train)
        time.sleep(seconds)
        process.kill()
        process.wait()
    subprocess.run(train, check=True)
    subprocess.run([*etude, "test", str(tmp_path / "multi30k"), "--data.test", pair("val")], check=True)

    rows = [json.loads(line) for line in (tmp_path / "multi30k" / "metrics.jsonl").read_text().splitlines()]
    bleu = next(row["test/bleu"] for row in rows if "test/bleu" in row)
    seconds = max(row["time/seconds"] for row in rows if "time/seconds" in row)
    print(f"Multi30k: beam BLEU {bleu:.2f} after {seconds / 60:.1f} minutes of training")  # noqa: T201 - the figure of the closing note
    assert bleu >= WANTED_BLEU
    assert seconds <= WITHIN_SECONDS
