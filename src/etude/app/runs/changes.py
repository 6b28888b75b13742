"""What changed between two starts of one run: what is only noted, and what makes it another run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.base.config.writing import inline
from etude.base.errors import RefusedError

PLACE = ("run.name", "run.dir")
"""Where a run lies, and under which name."""
SILENT = (
    *PLACE,
    "log",
    "data.test",
    "data.workers",
    "train.save_every",
    "train.keep_last",
    "train.keep_best",
    "train.log_every",
    "train.save_outputs",
    "train.save_outputs_every",
    "train.sanity_batches",
    "train.max_failed_saves",
    "train.limit_test",
)
"""Keys, or whole sections, that change no number of training or validation."""
HARMLESS = (
    *SILENT,
    "task.beam_size",
    "task.length_penalty",
    "train.max_duration",
    "train.min_duration",
    "train.patience",
    "train.min_delta",
    "train.max_skipped_steps",
    "train.eval_batch_size",
    "train.device",
)
"""Keys, or whole sections, that may change between two starts of one run, said in a note."""

Change = tuple[str, Any, Any]
"""A dotted key, what it was and what it is."""
_LISTED = 4


def judged(changes: Sequence[Change], begun: str, instead: str) -> list[str]:
    """A note for each change.

    Raises RefusedError where one of them makes it another run; `begun` says what was begun with what, `instead` what
    to do.
    """
    refused = [change for change in changes if not is_below(change[0], HARMLESS)]
    if refused:
        listed = "; ".join(f"{key} was {shown(old)} and is {shown(new)}" for key, old, new in refused[:_LISTED])
        more = f"; and {len(refused) - _LISTED} more" if len(refused) > _LISTED else ""
        raise RefusedError(f"{begun}: {listed}{more}. {instead}")
    return [f"{key} is now {shown(new)} (it was {shown(old)})." for key, old, new in changes]


def shown(value: Any) -> str:
    """A value as a config writes it; a key that is not there is not set."""
    return "not set" if value is None else inline(value)


def is_below(key: str, places: Iterable[str]) -> bool:
    """Whether a dotted key is one of `places` or stands inside it."""
    return any(key == place or key.startswith((f"{place}.", f"{place}[")) for place in places)


def machine_notes(path: Path, now: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing, of those in `environment.json` at `path`, without which bits may differ."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        old = {**before["hardware"], **before["versions"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    new = {**now["hardware"], **now["versions"]}
    told = {"threads": "threads", "processor": "processor", "torch": "torch"}
    return [
        f"The run began with another {name} ({old[key]}, now {new[key]}): last bits may differ from an unbroken run's."
        for key, name in told.items()
        if key in old and old[key] != new.get(key)
    ]
