"""A run in a notebook: one live line in the cell, the lines that stay below it, and Ctrl-C that leaves it usable."""

import sys
from queue import Empty
from types import ModuleType, SimpleNamespace

import pytest

from etude.callbacks.line import LOSS, Part, fitted
from etude.callbacks.notebook import NotebookScreen, in_notebook, progress_display

CELL = """
import time, torch, etude
from torch.utils.data import TensorDataset
class Slow(etude.Callback):
    def on_step_end(self, run, outcome):
        time.sleep(0.02)
data = TensorDataset(torch.ones(64, 2), torch.zeros(64, 1))
more = dict(loss=torch.nn.functional.mse_loss, max_duration="200 steps", batch_size=4, device="cpu", log_every="1 step")
etude.fit(torch.nn.Linear(2, 1), data, data, run_dir="run", loggers=[], callbacks=[Slow()], **more)
"""


@pytest.fixture
def cell(monkeypatch):
    """What a cell shows, where IPython stands in for a kernel's: of this, Etude uses these two functions."""
    shown = []

    def display(data, *, raw, display_id):
        assert (raw, display_id) == (True, True)
        shown.append(data)
        return SimpleNamespace(update=lambda data, raw: shown.__setitem__(-1, data))

    ipython, displaying = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    displaying.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displaying)
    return shown


def test_the_line_of_a_notebook_is_replaced_in_place_and_lines_that_stay_are_below(cell, capsys):
    screen = NotebookScreen()

    for step in range(3):
        screen.show(fitted([Part(LOSS, f"loss {step}")], screen.columns()), step / 2)
    screen.keep("val/loss 0.5")
    screen.close()

    assert cell == [{"text/plain": "100 %  loss 2"}]
    assert capsys.readouterr().err == "val/loss 0.5\n"


def test_only_a_kernel_is_a_notebook(cell, monkeypatch):
    assert in_notebook()
    assert progress_display()._open is NotebookScreen

    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


@pytest.mark.acceptance
def test_a_kernel_shows_a_run_and_goes_on_after_an_interrupt(tmp_path):
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager").KernelManager()
    manager._kernel_spec = pytest.importorskip("jupyter_client.kernelspec").KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
    )
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        first = outputs(client, CELL, until="update_display_data", then=manager.interrupt_kernel)
        after = outputs(client, "print('alive')")
        again = outputs(client, CELL)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    assert [kind for kind, _ in first].count("display_data") == 1
    assert first[-1] == ("error", {"ename": "SessionInterrupt", "evalue": "interrupted by SIGINT"})
    assert any("saved at step" in content.get("text", "") for _, content in first)
    assert after == [("stream", {"name": "stdout", "text": "alive\n"})]
    assert any("Resuming from step" in content.get("text", "") for _, content in again)
    assert all(kind != "error" for kind, _ in again)


def outputs(client, code, until=None, then=None):
    """What a cell writes; at the first output of the kind `until`, `then` is called."""
    asked, found = client.execute(code), []
    while True:
        try:
            message = client.get_iopub_msg(timeout=120)
        except Empty:
            raise AssertionError("the kernel says nothing") from None
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != asked:
            continue
        if kind == "status" and content["execution_state"] == "idle":
            return found
        if kind == "error":
            content = {name: content[name] for name in ("ename", "evalue")}
        if kind not in {"status", "execute_input"}:
            found.append((kind, content))
        if kind == until and then is not None:
            then()
            then = None
