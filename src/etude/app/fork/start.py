"""The folder of a fork as it begins: its config, and all that it takes over from its parent."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.app.fork.allowed import judge
from etude.app.fork.plan import FORK, Plan, as_json, plain_state, progress_of, read_fork
from etude.app.runs.folder import CODE, CONFIG, DATA, ENVIRONMENT
from etude.base.durations import Duration
from etude.base.errors import RefusedError, StorageError
from etude.base.files import (
    fsync_file,
    fsync_folder,
    make_folder,
    read_json,
    sha256_of,
    storage,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)
from etude.base.progress import Progress
from etude.tasks.task_type import TOKENIZERS
from etude.train.memory.checkpoint.reader import verify
from etude.train.memory.checkpoint.store import Store
from etude.train.watch.record import METRICS

Say = Callable[[str], None]
SHARED = "shared"
"""The folder inside a fork's where the steps of its parent are taken, until it has come to its own."""
PARENTS_ROWS = "parent.jsonl"


def make(plan: Plan, say: Say) -> bool:
    """Make the fork's folder, whole or not at all; False where this very fork is there already.

    Only the parent's folder is read, and nothing in it is changed. Raises RefusedError for changes that it cannot take.
    """
    folder = plan.folder
    if folder.exists() and any(folder.iterdir()):
        return False
    base = _base(plan, say)
    if base is None and (plan.parent / FORK).is_file():
        _refuse_a_fork_without_its_begin(plan)
    state = {} if base is None else plain_state(base)
    judge(plan.changes, at_an_epochs_end=ends_an_epoch(plan.until, state), at=plan.at)
    with whole_folder(folder, "make the folder") as part:
        make_folder(part / SHARED / "checkpoints")
        _take_over(plan, base, state, part)
        write_text(part / CONFIG, plan.after.toml())
        write_json(part / FORK, _about(plan, progress_of(state).step))
    _tell(plan, progress_of(state), say)
    return True


def is_exactly(until: Duration, progress: Progress) -> bool:
    """Whether `progress` is the first moment that has come to `until`, as far as it tells by itself."""
    if until.unit == "steps":
        return progress.step == until.amount
    whole = until.unit == "epochs" and until.amount.denominator == 1
    return whole and progress.epoch == until.amount and progress.epoch_done == 0


def ends_an_epoch(until: Duration, state: Mapping[str, Any]) -> bool:
    """Whether the fork begins between two epochs; where that is not known ahead, it is taken not to."""
    if until.unit == "epochs" and until.amount.denominator == 1:
        return True
    return bool(state) and is_exactly(until, progress_of(state)) and state.get("position") is None


def _base(plan: Plan, say: Say) -> Path | None:
    """The parent's newest sound checkpoint that is not past the moment; None where there is none."""
    store = Store(plan.parent / "checkpoints")
    for step in reversed(store.steps()):
        path = store.path(step)
        try:
            progress = progress_of(plain_state(path))
            if plan.until.reached(progress) and not is_exactly(plan.until, progress):
                continue
            verify(path)
        except StorageError as error:
            say(f"{error} An earlier checkpoint is taken.")
            continue
        return path
    return None


def _refuse_a_fork_without_its_begin(plan: Plan) -> None:
    """Steps before a fork's oldest checkpoint cannot be taken again: it did not begin with its own config."""
    told = read_fork(plan.parent)
    raise RefusedError(
        f"{plan.parent} is itself a fork, of {told.get('parent')} at {told['at']}, and keeps no checkpoint up to "
        f"{plan.at} from which its steps could be taken again; give a later --at, or fork {told.get('parent')}."
    )


def _take_over(plan: Plan, base: Path | None, state: Mapping[str, Any], part: Path) -> None:
    """Copy what the parent's steps were made with and, up to the checkpoint `base`, what they led to."""
    parent, shared = plan.parent, part / SHARED
    write_text(shared / CONFIG, plan.before.toml())
    if (parent / ENVIRONMENT).is_file():
        write_bytes(part / ENVIRONMENT, _bytes(parent / ENVIRONMENT))
    if (parent / TOKENIZERS).is_dir():
        for place in (part, shared):
            copy_folder(parent / TOKENIZERS, place / TOKENIZERS)
    rows = _bytes(parent / METRICS) if (parent / METRICS).is_file() else b""
    write_bytes(shared / PARENTS_ROWS, rows)
    if base is None:
        return
    counted = int(state["record"]["bytes"])
    write_bytes(shared / METRICS, rows[:counted] + _of_the_end(rows[counted:], progress_of(state).step))
    copy_folder(base, shared / "checkpoints" / base.name)
    verify(shared / "checkpoints" / base.name)
    best = (state.get("part stopping") or {}).get("best_step")
    if best is not None and best != progress_of(state).step:
        # Gone where the parent has had a better one since; the fork then says so when it goes on.
        path = Store(parent / "checkpoints").path(best)
        with suppress(StorageError):
            verify(path)
            copy_folder(path, shared / "checkpoints" / path.name)


def _of_the_end(rows: bytes, step: int) -> bytes:
    """The rows that a run wrote because it ended, without those of later tests."""
    kept = b""
    for line in rows.splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row.get("step") != step:
            break
        kept += b"" if any(key.startswith("test/") for key in row) else line
    return kept


def copy_folder(source: Path, target: Path) -> None:
    """Copy a flat folder, durable."""
    with storage("copy", source):
        shutil.copytree(source, target)
    for path in (target, *target.iterdir()):
        with storage("write", path):
            (fsync_folder if path.is_dir() else fsync_file)(path)


def _bytes(path: Path) -> bytes:
    with storage("read", path):
        return path.read_bytes()


def _about(plan: Plan, base: int) -> dict[str, Any]:
    hashes = plan.parent / CODE / "sha256.json"
    data = plan.parent / DATA
    return {
        "parent": str(plan.parent),
        "parent_config_sha256": sha256_of(plan.parent / CONFIG),
        "at": str(plan.at),
        "until": str(plan.until),
        "step": None,
        "from_checkpoint": base or None,
        "changes": as_json(plan.changes),
        "data": read_json(data) if data.is_file() else {},
        "code": read_json(hashes) if hashes.is_file() else {},
        "begun_anew": [],
        "repeated": None,
    }


def _tell(plan: Plan, base: Progress, say: Say) -> None:
    if is_exactly(plan.until, base):
        said = f"taken over from its checkpoint of step {base.step:,}"
    else:
        begin = f"from its checkpoint of step {base.step:,}" if base.step else "from its first step"
        said = f"which are taken again with its config, {begin} on"
    say(f"A fork of {plan.parent}, {plan.folder.name}, shares its first {plan.at}, {said}.")
    if not plan.until.reached(plan.reached):
        say(
            f"{plan.parent} itself has only come to step {plan.reached.step:,} so far; the fork takes the rest of the "
            f"way with its config."
        )
    if not plan.changes:
        say("No value is changed: the fork will be its parent, step for step.")
