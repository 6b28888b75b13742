"""A wheel in an environment of its own, which knows no checkout: `etude new TASK`, then the commands of its README."""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from etude.app.new.project import RUN, TEMPLATE_OF

pytestmark = pytest.mark.acceptance

CHECKOUT = Path(__file__).parents[2]
LONGEST = "60 steps"
"""Of runs whose config asks for more, so that each is one of a minute."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment with the wheel, and with the libraries of this one."""
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    shutil.copytree(CHECKOUT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", home / "wheels", source], check=True)
    venv.create(home / "env", with_pip=False)
    programs = home / "env/bin"
    (wheel,) = (home / "wheels").glob("etude-*.whl")
    subprocess.run([*pip, "--python", programs / "python", "install", "--no-deps", wheel], check=True)
    (libraries,) = (home / "env/lib").glob("python*/site-packages")
    # Files .pth in these are not read, so that an editable install of the checkout is not found.
    (libraries / "shared.pth").write_text("".join(f"{place}\n" for place in site.getsitepackages()))
    shutil.rmtree(source)
    return programs


def run(programs, *words, folder, **options):
    """A command of the environment, by its name, with nothing of this process's Python about it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        words, cwd=folder, env={**kept, "PATH": path}, capture_output=True, text=True, check=False, **options
    )


def files(package):
    return {
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.parent.suffix != ".egg-info"
    }


def test_the_package_is_that_of_the_wheel_which_holds_every_file(installed, tmp_path):
    told = run(installed, "python", "-c", "import etude; print(etude.__file__)", folder=tmp_path)

    package = Path(told.stdout.strip()).parent
    assert package.is_relative_to(installed.parent)
    assert files(package) == files(CHECKOUT / "src/etude")


@pytest.mark.parametrize(("task", "kind"), TEMPLATE_OF, ids=str)
def test_a_new_folder_of_every_task_trains_and_does_what_its_readme_says(installed, tmp_path, task, kind):
    words = () if kind is None else ("--data", kind)
    made = run(installed, "etude", "new", task, "d", *words, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "d"
    shown = run(installed, "etude", "check", "config.toml", folder=folder)
    assert shown.returncode == 0, shown.stderr
    lengths = "--train.max_duration", f'["{LONGEST}", "1000 epochs"]'

    trained = run(installed, "etude", "train", "config.toml", *lengths, folder=folder)

    assert trained.returncode == 0, trained.stderr
    assert (folder / RUN / "checkpoints/best").exists()
    readme = (folder / "README.md").read_text()
    *_, predict = readme.partition("```sh")[2].partition("```")[0].strip().splitlines()
    told = run(installed, "bash", "-c", predict, folder=folder)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() or task in {"language_model", "hf", "speech_recognition", "translation"}
    again = run(installed, "etude", "train", "config.toml", *lengths, folder=folder)
    assert again.returncode == 0, again.stderr
    assert str(CHECKOUT) not in made.stderr + trained.stderr + told.stderr
