"""The first hour of five users, as a shell runs it: each script ends well, every step of it checked by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOURNEYS = sorted((Path(__file__).parent / "journeys").glob("*.sh"))
SMALL = (
    '[log]\ntensorboard = false\n[train]\ndevice = "cpu"\nprecision = "float32"\nmax_duration = "12 steps"\n'
    'save_every = "4 steps"\neval_every = "6 steps"\n'
)
CONFIGS = {
    "pairs": 'extends = "{recipes}/translation.toml"\n[tokenizer]\ntype = "word"\n[model]\nd_model = 8\nheads = 2\n'
    f"feedforward = 16\n{SMALL}batch_tokens = 40\n",
    "text": 'extends = "{recipes}/language_model.toml"\n[tokenizer]\ntype = "char"\n[data]\nblock_size = 16\n[model]\n'
    f'type = "decoder"\nsize = false\nd_model = 16\nheads = 2\nlayers = 1\n{SMALL}batch_size = 4\n',
}
"""The recipes, made small enough for a test."""


@pytest.mark.acceptance
@pytest.mark.parametrize("script", JOURNEYS, ids=lambda script: script.stem)
def test_a_first_hour_goes_well(script, tmp_path):
    etude = tmp_path / "bin" / "etude"
    etude.parent.mkdir()
    etude.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m etude "$@"\n')
    etude.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{etude.parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    for name, config in CONFIGS.items():
        (tmp_path / f"{name}.toml").write_text(config.format(recipes=ROOT / "recipes"))

    words = ["bash", "-euxo", "pipefail", str(script)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
