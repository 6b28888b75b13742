"""The import contracts fail where somebody breaks them: each is broken in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
PLANTED = {
    "a cycle of two packages": ("etude/data/files/lines.py", "import etude.data.feeds.feed\n", "Packages are acyclic"),
    "a cycle inside a function": (
        "etude/base/errors.py",
        "def late():\n    import etude.base.files\n",
        "Packages are acyclic",
    ),
    "a task that knows another": (
        "etude/tasks/hf/task.py",
        "import etude.tasks.translation.task\n",
        "Tasks do not know each other",
    ),
    "torch in the loop": ("etude/train/loop.py", "import torch\n", "The loop knows no torch"),
    "torch behind the loop": ("etude/train/loop.py", "import etude.train.device\n", "The loop knows no torch"),
    "an arrow inside train that points up": (
        "etude/train/task.py",
        "import etude.train.step.update\n",
        "Inside train",
    ),
    "an arrow between packages that points up": (
        "etude/train/task.py",
        "import etude.tasks\n",
        "Arrows point one way",
    ),
}


def linted(place):
    """What the linter says about the package that lies in `place`."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--config", str(place / "pyproject.toml")],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "src" / "etude", tmp_path / "src" / "etude", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_as_it_is_keeps_every_contract(copy):
    code, said = linted(copy)

    assert code == 0, said


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_breaks_its_contract(what, copy):
    file, line, contract = PLANTED[what]
    path = copy / "src" / file
    path.write_text(path.read_text() + line)

    code, said = linted(copy)

    assert code == 1
    assert f"{contract} BROKEN" in said
