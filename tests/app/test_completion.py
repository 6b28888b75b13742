"""A shell completes verbs, flags and keys from what `etude completion` prints."""

import shutil
import subprocess

import pytest

from etude.__main__ import main
from etude.app.cli.verb import SHELLS
from etude.app.cli.verbs import VERBS


@pytest.fixture
def script(capsys):
    def printed(shell):
        assert main(["completion", shell]) == 0
        return capsys.readouterr().out

    return printed


def completed(script, *words):
    listed = " ".join(f"'{word}'" for word in words)
    ask = f"{script}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _etude; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("etude", "pr"), ["predict"]),
        (("etude", "predict", "--n-b"), ["--n-best"]),
        (("etude", "predict", "runs/a", "--js"), ["--json"]),
        (("etude", "train", "a.toml", "--train.clip"), ["--train.clip_grad"]),
        (("etude", "runs", "--train.clip"), []),
        (("etude", "train", "a"), []),
        (("etude", "nonsense", "--"), []),
    ],
)
def test_bash_completes_verbs_flags_and_keys_and_leaves_files_to_itself(words, found, script):
    assert completed(script("bash"), *words) == found


def test_bash_offers_every_verb(script):
    assert completed(script("bash"), "etude", "") == [verb.name for verb in VERBS]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_is_one_that_its_shell_can_read(shell, script):
    text = script(shell)

    assert all(verb.name in text for verb in VERBS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True, capture_output=True)


def test_an_unknown_shell_is_refused_with_those_there_are(capsys):
    assert main(["completion", "tcsh"]) == 2

    assert "bash" in capsys.readouterr().err
