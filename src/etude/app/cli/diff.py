"""`etude diff`: how two runs differ in what they were made from, and where they part."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etude.app.cli.streams import put, say
from etude.app.runs.diff import Comparison, Pair, compare_runs
from etude.base.config.writing import inline

SHOWN = 6
"""Entries of one kind that are shown; the rest are counted."""
DIGEST = 64
"""Characters of a SHA-256, of which the first few tell two apart."""

CAUSES = {
    "config": "Likely because of the config: {}.",
    "data": "The configs agree, but the data does not: {}.",
    "code": "Configs and data agree, but the code does not: {}.",
    "arithmetic": "Config, data and code agree, so it is the arithmetic: {}.",
    "unknown": "Nothing that is recorded differs: an operation that is not deterministic, or a file changed by hand.",
}


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print how two runs differ; 0 whether or not they do."""
    del overrides
    found = compare_runs(Path(arguments.first), Path(arguments.second))
    for note in found.notes:
        say(note)
    put(json.dumps(as_json(found), ensure_ascii=False) if arguments.json else "\n".join(lines(found)))
    return 0


def lines(found: Comparison) -> Iterator[str]:
    """The comparison as text."""
    yield f"a: {found.first}"
    yield f"b: {found.second}"
    for title, pairs in (
        ("Config", found.config),
        ("Data", found.data),
        ("Code", found.code),
        ("Environment", found.environment),
    ):
        yield f"{title}: " + (f"{len(pairs)} different" if pairs else "the same")
        yield from _entries(pairs, most=None if title == "Config" else SHOWN)
    yield from _steps(found)


def _steps(found: Comparison) -> Iterator[str]:
    compared = f"{found.logged:,} logged steps and {len(found.saved):,} checkpoints of both were compared"
    step = found.parts_at
    if step is None and found.equal_to is None:
        yield "Steps: nothing to compare; they have no logged step and no checkpoint in common."
    elif step is None:
        yield f"Steps: equal to step {found.equal_to:,}, the last that both have ({compared})."
    else:
        seen = "no earlier step to compare" if found.equal_to is None else f"equal to step {found.equal_to:,}"
        yield f"Steps: they part at step {step:,}; {seen} ({compared})."
    if found.rows is not None:
        yield f"Metrics: differ from step {found.rows.step:,} on"
        yield from _entries(found.rows.values, missing="not finite")
    yield from _weights(found)
    if found.state is not None:
        named = ", ".join(found.state[1][:SHOWN]) + _more(found.state[1])
        yield f"State: differs in the checkpoint of step {found.state[0]:,}: {named}"
    if found.cause is not None:
        yield CAUSES[found.cause].format(", ".join(_reasons(found)))


def _weights(found: Comparison) -> Iterator[str]:
    apart = found.weights
    if apart is None:
        return
    beside = [f"{apart.optimizer} tensors of the optimizer" if apart.optimizer else ""]
    beside.append(f"{apart.averaged} averaged weights" if apart.averaged else "")
    also = "".join(f"; {part}" for part in beside if part)
    yield f"Weights: {len(apart.weights)} of {apart.of} differ in the checkpoint of step {apart.step:,}{also}"
    for name, far in apart.weights[:SHOWN]:
        yield f"  {name}: " + ("of another shape, or in one alone" if far is None else f"by {far:.3g} at most")
    if len(apart.weights) > SHOWN:
        yield f"  and {len(apart.weights) - SHOWN} more"


def _reasons(found: Comparison) -> list[str]:
    """The names of what the difference most likely comes from."""
    kinds = {"config": found.telling, "data": found.data, "code": found.code, "arithmetic": found.environment}
    names = [name for name, _, _ in kinds.get(found.cause or "", [])]
    return names[:SHOWN] + ([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])


def _entries(pairs: Sequence[Pair], most: int | None = SHOWN, missing: str = "not there") -> Iterator[str]:
    for name, first, second in pairs[:most]:
        yield f"  {name}: a {_shown(first, missing)}, b {_shown(second, missing)}"
    if most is not None and len(pairs) > most:
        yield f"  and {len(pairs) - most} more"


def _more(names: Sequence[Any]) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


def _shown(value: Any, missing: str) -> str:
    if value is None:
        return missing
    if isinstance(value, str) and len(value) == DIGEST:
        return value[:12]
    return inline(value)


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison as one JSON object; every difference, none left out."""
    weights = found.weights
    return {
        "a": str(found.first),
        "b": str(found.second),
        "config": _objects(found.config),
        "data": _objects(found.data),
        "code": _objects(found.code),
        "environment": _objects(found.environment),
        "equal_to": found.equal_to,
        "parts_at": found.parts_at,
        "cause": found.cause,
        "logged_steps": found.logged,
        "checkpoints": found.saved,
        "metrics": None if found.rows is None else {"step": found.rows.step, "values": _objects(found.rows.values)},
        "weights": None
        if weights is None
        else {
            "step": weights.step,
            "parameters": [{"name": name, "max_difference": far} for name, far in weights.weights],
            "of": weights.of,
            "optimizer_tensors": weights.optimizer,
            "averaged_tensors": weights.averaged,
        },
        "state": None if found.state is None else {"step": found.state[0], "names": found.state[1]},
    }


def _objects(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [{"name": name, "a": first, "b": second} for name, first, second in pairs]
