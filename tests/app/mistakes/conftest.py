"""The table's form is importable by name; one small trained run serves every mistake that needs a run."""

import contextlib
import io
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mistaken import RUN, config, write

from etude.app.cli.main import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with data, config and a run of two steps, each saved."""
    home = tmp_path_factory.mktemp("trained")
    write(home, {"translate.toml": config()})
    heard = io.StringIO()
    with contextlib.chdir(home), contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
        assert main(["train", "translate.toml"]) == 0, heard.getvalue()
    return home


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder to make mistakes in, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home, trained):
    """A copy of the trained run, where the current folder is."""
    shutil.copytree(trained, home, dirs_exist_ok=True, symlinks=True)
    composed = home / RUN / "config.toml"
    composed.write_text(composed.read_text().replace(str(trained), str(home)))
    return home / RUN
