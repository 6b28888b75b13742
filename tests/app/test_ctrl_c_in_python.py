"""Ctrl-C from Python: what is saved is said, a script may catch it, and a session goes on with what is there."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from python_face import Line, line, trainer
from torch import nn

import etude
from etude.app.interrupted import SessionInterrupt, telling
from etude.train.interrupt import Interrupted
from etude.train.memory.checkpoint import verify


class Pressed(etude.Callback):
    """Presses Ctrl-C, or sends another signal, in these steps."""

    def __init__(self, *steps, number=signal.SIGINT):
        self.steps, self.number = steps, number

    def on_step_end(self, run, outcome):
        del outcome
        for _ in range(self.steps.count(run.progress.step)):
            signal.raise_signal(self.number)


def pressed(folder, told, *steps, number=signal.SIGINT):
    callbacks = [Pressed(*steps, number=number)]
    return trainer(run_dir=folder, say=told.append, callbacks=callbacks, max_duration="9 steps", batch_size=4)


def test_a_script_catches_ctrl_c_as_keyboard_interrupt_and_is_told_how_to_go_on(tmp_path):
    told, folder = [], tmp_path / "run"
    before, made = signal.getsignal(signal.SIGINT), pressed(folder, told, 4)

    with pytest.raises(KeyboardInterrupt) as caught:
        made.fit(Line(), line())

    assert isinstance(caught.value, SystemExit)
    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert verify((folder / "checkpoints" / "last").resolve())["step"] == 4
    assert told[-1] == (
        f"Interrupted by SIGINT and saved at step 4 in {folder}.\nRun the same script or cell again to resume."
    )
    assert made.result.progress.step == 4
    assert pressed(folder, told).fit(Line(), line()).progress.step == 9


def test_without_a_folder_the_model_in_memory_is_named():
    told, task = [], Line()
    made = pressed(None, told, 4)

    with pytest.raises(KeyboardInterrupt):
        made.fit(task, line())

    assert "Nothing is saved, since the run has no folder (give run_dir)" in told[-1]
    assert told[-1].endswith("the model in memory is that of step 4.")
    assert torch.cat(made.predict(task, line())).shape == (24, 1)


def test_a_second_ctrl_c_stops_at_once_and_says_what_there_is(tmp_path):
    told = []

    with pytest.raises(KeyboardInterrupt) as caught:
        pressed(tmp_path / "run", told, 4, 4).fit(Line(), line())

    assert not isinstance(caught.value, Interrupted)
    assert told[-1].startswith(f"Stopped at once. What was saved before is in {tmp_path / 'run'}.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_of_the_system_is_no_keyboard_interrupt(number, tmp_path):
    with pytest.raises(SystemExit) as caught:
        pressed(tmp_path / "run", [], 4, number=number).fit(Line(), line())

    assert not isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.code == {signal.SIGTERM: 143, signal.SIGUSR1: 75}[number]


def test_in_a_session_ctrl_c_is_no_system_exit_which_would_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)  # as a prompt and a notebook have it
    made = pressed(tmp_path / "run", [], 4)

    with pytest.raises(SessionInterrupt) as caught:
        made.fit(Line(), line())

    assert not isinstance(caught.value, SystemExit)
    assert str(caught.value) == "interrupted by SIGINT"
    assert caught.value.result.progress.step == 4
    assert made.result is caught.value.result


def test_a_system_signal_in_a_session_keeps_its_code(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    with pytest.raises(SystemExit) as caught, telling(None, print):
        raise Interrupted(signal.SIGTERM)

    assert caught.value.code == 143


SESSION = """
import signal, torch, etude
from torch.utils.data import TensorDataset
class Press(etude.Callback):
    def on_step_end(self, run, outcome):
        if run.progress.step == 3: signal.raise_signal(signal.SIGINT)

data = TensorDataset(torch.ones(8, 2), torch.zeros(8, 1))
more = dict(loss=torch.nn.functional.mse_loss, callbacks=[Press()], run_dir="run", progress=False, loggers=[])
etude.fit(torch.nn.Linear(2, 1), data, max_duration="9 steps", batch_size=2, device="cpu", **more)
print("the session goes on")
"""


def answered(words, folder, text):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, input=text, capture_output=True, text=True, env=environment, check=False
    )


def test_a_prompt_goes_on_after_ctrl_c_and_a_script_ends_with_130_and_no_traceback(tmp_path):
    (tmp_path / "script.py").write_text(SESSION.replace('"run"', '"other"'))

    at_prompt = answered(["-i"], tmp_path, SESSION)
    script = answered(["script.py"], tmp_path, "")

    assert "the session goes on" in at_prompt.stdout
    assert "saved at step 3 in run" in at_prompt.stderr
    assert at_prompt.returncode == 0
    assert script.returncode == 130
    assert "Traceback" not in script.stderr
    assert "saved at step 3 in other" in script.stderr


def test_etude_train_tells_of_ctrl_c_as_the_trainer_does(tmp_path, capsys):
    lines = "".join(f"{word} {word}\t{word}\n" for word in ("a", "b", "c", "d") * 4)
    (tmp_path / "train.tsv").write_text(lines)
    (tmp_path / "press.py").write_text(
        "import signal, etude\nclass Press(etude.Callback):\n    def on_step_end(self, run, outcome):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
    )
    (tmp_path / "c.toml").write_text(
        f'[task]\ntype = "translation"\n[data]\ntrain = "{tmp_path}/train.tsv"\n[run]\ndir = "{tmp_path}/run"\n'
        "[model]\nd_model = 8\nheads = 2\nencoder_layers = 1\ndecoder_layers = 1\n[log]\nprogress = false\n"
        '[train]\nmax_duration = "9 steps"\nbatch_size = 4\ndevice = "cpu"\nprecision = "float32"\n'
        f'[callbacks.press]\ntype = "{tmp_path}/press.py:Press"\n'
    )

    with pytest.raises(KeyboardInterrupt):
        etude.train(tmp_path / "c.toml")

    said = capsys.readouterr().out
    assert "Device: cpu, float32; 1 rank" in said
    assert f"saved at step 1 in {tmp_path / 'run' / 'c'}.\nRun the same script or cell again to resume." in said


def test_a_plain_module_is_interrupted_alike(tmp_path):
    made = {"callbacks": [Pressed(2)], "progress": False, "say": lambda _: None, "device": "cpu", "batch_size": 4}

    with pytest.raises(KeyboardInterrupt):
        etude.fit(nn.Linear(4, 1), line(), loss=nn.functional.mse_loss, max_duration="9 steps", **made)
