"""The law that every feature is held to: a run that is cut anywhere ends where the unbroken one does, to the bit."""

from small_runs import rows, weights

import etude


class Cut(BaseException):
    """What ends a process in the middle: nothing is saved on the way out."""


class Cutting:
    """A callback that ends the run, as a kill would, when a step is done."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run, outcome):
        if run.progress.step == self.step:
            raise Cut


def state(folder, name="last"):
    """Every file of a checkpoint but its manifest, which names versions and hashes; without the clock."""
    import json

    place = folder / "checkpoints" / name
    found = {file.name: file.read_bytes() for file in place.glob("*.safetensors")}
    plain = json.loads((place / "state.json").read_text())
    plain["progress"].pop("seconds")
    plain.pop("record")  # how many bytes of rows: those hold times
    for part in ("part stopping",):
        plain[part].pop("since", None)
        plain[part].pop("judged", None)
    return found, plain


def assert_a_cut_changes_nothing(folder, make, cuts, straight=None):
    """`make(folder, callbacks)` trains a run in `folder`; cut at each of `cuts`, it ends as the one that was not.

    `cuts` are steps at which the process dies, one after another in the same run. Every save but the newest before a
    cut is behind it, so that steps are computed twice.
    """
    if straight is None:
        straight = folder / "straight"
        make(straight, [])
    broken = folder / ("cut-" + "-".join(map(str, cuts)))
    for cut in cuts:
        try:
            make(broken, [Cutting(cut)])
        except Cut:
            continue
        raise AssertionError(f"the run ended before step {cut}")
    result = make(broken, [])

    assert rows(broken) == rows(straight)
    assert weights(broken) == weights(straight)
    assert state(broken) == state(straight)
    assert isinstance(result, etude.Result)
    return straight
