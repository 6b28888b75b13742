"""Checkpoints of a made-up run: the content of each step is a function of the step."""

from pathlib import Path

import torch

from etude.train.memory.checkpoint import Content, Store, verify
from etude.train.memory.checkpoint.store import BEST, LAST

RANKING = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.3, 5: 0.05}
"""What each step's validation measured; less is better."""


def content(step):
    weight = torch.arange(6.0).reshape(2, 3) + step
    return Content.capture(
        step,
        model={"weight": weight, "tied": weight},
        averaged={"weight": weight / 2},
        optimizers={"0": {"momentum": weight * 3, "step": step}},
        state={"progress": {"step": step}, "draws": torch.arange(5) * step, "ended": None},
        extra={"task.json": {"class": "none"}},
    )


def ranking(step):
    return {known: merit for known, merit in RANKING.items() if known <= step}


def best_of(step):
    return min(ranking(step), key=RANKING.get)


def store_in(folder):
    return Store(Path(folder), keep_last=2, keep_best=1)


def save(store, step):
    store.save(content(step), best=best_of(step) == step, ranking=ranking(step), wait=True)


def save_in(folder, step):
    """One save in a process of its own."""
    store = store_in(folder)
    save(store, step)
    store.close()


def begun(folder, until=2):
    """A store with the saves up to `until`."""
    store = store_in(folder)
    store.prepare()
    for step in range(1, until + 1):
        save(store, step)
    return store


def gone_on(folder):
    """What a start does: the newest sound step, with links and folders put right."""
    store = store_in(folder)
    store.prepare()
    complaints = []
    newest = store.newest_sound(complaints.append)
    step = int(newest.name[5:])
    store.settle(step, best=best_of(step), ranking=ranking(step), complain=complaints.append)
    assert complaints == []
    return store, step


def tree(folder):
    """Everything below `folder`: what links point to, what files hold."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def assert_whole(store):
    """Links and every folder with a checkpoint's name are what they say."""
    for name in (BEST, LAST):
        assert store.link(name) is not None, name
    for step in store.steps():
        assert verify(store.path(step))["step"] == step
