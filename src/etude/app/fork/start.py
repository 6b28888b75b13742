"""The folder of a fork as it begins: its config, and all that it takes over from its parent."""

import shutil
from contextlib import suppress
from pathlib import Path

from etude.app.fork.about import FORK, About, as_json, read_about
from etude.app.fork.allowed import judge
from etude.app.fork.kept import Kept, is_whole_epochs
from etude.app.fork.plan import Plan, is_empty
from etude.app.runs.folder import CODE, CONFIG, DATA, ENVIRONMENT
from etude.base.durations import Duration
from etude.base.errors import RefusedError, StorageError
from etude.base.files import (
    make_folder,
    read_json,
    sha256_of,
    storage,
    whole_folder,
    write_bytes,
    write_text,
)
from etude.base.regular import reading
from etude.base.says import Say
from etude.tasks.task_type import TOKENIZERS
from etude.train.memory.checkpoint.reader import verify
from etude.train.memory.checkpoint.store import Store
from etude.train.watch.record import METRICS, row_of

SHARED = "shared"
"""The folder inside a fork's where the steps of its parent are taken, until it has come to its own."""
PARENTS_ROWS = "parent.jsonl"


def make(plan: Plan, say: Say) -> bool:
    """Make the fork's folder, whole or not at all; False where this very fork is there already.

    Only the parent's folder is read, and nothing in it is changed. Raises RefusedError for changes that it cannot take.
    """
    if not is_empty(plan.folder):
        return False
    base = _base(plan, say)
    if base is None:
        _refuse_a_fork_without_its_begin(plan)
    kept = Kept() if base is None else Kept.at(base)
    judge(plan.changes, at_an_epochs_end=_ends_an_epoch(plan.until, kept), at=plan.at)
    with whole_folder(plan.folder, "make the folder") as part:
        make_folder(part / SHARED / "checkpoints")
        _take_over_origins(plan, part)
        if base is not None:
            _take_over_steps(plan.parent, base, kept, part / SHARED)
        write_text(part / CONFIG, plan.after.toml())
        _about(plan, kept.progress.step).write(part)
    _tell(plan, kept, say)
    return True


def _ends_an_epoch(until: Duration, kept: Kept) -> bool:
    """Whether the fork begins between two epochs; where that is not known ahead, it is taken not to."""
    return is_whole_epochs(until) or (kept.is_between_epochs and kept.is_exactly(until))


def _base(plan: Plan, say: Say) -> Path | None:
    """The parent's newest sound checkpoint that is not past the moment; None where there is none."""
    store = Store(plan.parent / "checkpoints")
    for step in reversed(store.steps()):
        path = store.path(step)
        try:
            kept = Kept.at(path)
            if kept.has_come_to(plan.until) and not kept.is_exactly(plan.until):
                continue
            verify(path)
        except StorageError as error:
            say(f"{error} Etude uses an earlier checkpoint.")
            continue
        return path
    return None


def _refuse_a_fork_without_its_begin(plan: Plan) -> None:
    """Steps before the oldest checkpoint of a parent that is a fork itself cannot be taken again.

    It did not begin with its own config.
    """
    if not (plan.parent / FORK).is_file():
        return
    told = read_about(plan.parent)
    raise RefusedError(
        f"{plan.parent} is itself a fork, of {told.parent} at {told.at}, and keeps no checkpoint up to {plan.at} from "
        f"which its steps could be recomputed; give a later --at, or fork {told.parent}."
    )


def _take_over_origins(plan: Plan, part: Path) -> None:
    """Copy what the parent's steps were made with, and what it logged of them."""
    parent, shared = plan.parent, part / SHARED
    write_text(shared / CONFIG, plan.before.toml())
    if (parent / ENVIRONMENT).is_file():
        write_bytes(part / ENVIRONMENT, _bytes(parent / ENVIRONMENT))
    if (parent / TOKENIZERS).is_dir():
        for place in (part, shared):
            copy_folder(parent / TOKENIZERS, place / TOKENIZERS)
    write_bytes(shared / PARENTS_ROWS, _bytes(parent / METRICS) if (parent / METRICS).is_file() else b"")


def _take_over_steps(parent: Path, base: Path, kept: Kept, shared: Path) -> None:
    """Copy what the parent's steps led to, up to its checkpoint `base`."""
    rows, step = _bytes(shared / PARENTS_ROWS), kept.progress.step
    write_bytes(shared / METRICS, rows[: kept.rows] + _of_the_end(rows[kept.rows :], step))
    copy_folder(base, shared / "checkpoints" / base.name)
    verify(shared / "checkpoints" / base.name)
    if kept.best_step is not None and kept.best_step != step:
        # Gone where the parent has had a better one since; the fork then says so when it goes on.
        path = Store(parent / "checkpoints").path(kept.best_step)
        with suppress(StorageError):
            verify(path)
            copy_folder(path, shared / "checkpoints" / path.name)


def _of_the_end(rows: bytes, step: int) -> bytes:
    """The rows that a run wrote because it ended, without those of later tests."""
    kept = b""
    for line in rows.splitlines(keepends=True):
        row = row_of(line)
        if row is None or row.get("step") != step:
            break
        kept += b"" if any(key.startswith("test/") for key in row) else line
    return kept


def copy_folder(source: Path, target: Path) -> None:
    """Copy a flat folder into one that becomes durable as a whole."""
    with storage("copy", source):
        shutil.copytree(source, target)


def _bytes(path: Path) -> bytes:
    with storage("read", path), reading(path) as file:
        return file.read()


def _about(plan: Plan, base: int) -> About:
    hashes = plan.parent / CODE / "sha256.json"
    data = plan.parent / DATA
    return About(
        parent=str(plan.parent),
        parent_config_sha256=sha256_of(plan.parent / CONFIG),
        at=str(plan.at),
        until=str(plan.until),
        step=None,
        from_checkpoint=base or None,
        changes=as_json(plan.changes),
        data=read_json(data) if data.is_file() else {},
        code=read_json(hashes) if hashes.is_file() else {},
    )


def _tell(plan: Plan, base: Kept, say: Say) -> None:
    step = base.progress.step
    if base.is_exactly(plan.until):
        said = f"copied from its checkpoint of step {step:,}"
    else:
        begin = f"from its checkpoint of step {step:,}" if step else "from its first step"
        said = f"which are recomputed with its config, {begin} on"
    say(f"A fork of {plan.parent}, {plan.folder.name}, shares its first {plan.at}, {said}.")
    if not plan.until.reached(plan.reached):
        say(
            f"{plan.parent} has only reached step {plan.reached.step:,} so far; the fork trains the remaining "
            f"steps with its config."
        )
    if not plan.changes:
        say("No value is changed: the fork will equal its parent, bit for bit.")
