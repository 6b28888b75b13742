"""`etude diff`: how two runs differ in what they were made from, and where they part."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etude.app.cli.streams import printable, put, say
from etude.app.runs.apart import Weights
from etude.app.runs.diff import Comparison, Pair, compare_runs
from etude.base.config.writing import inline

SHOWN = 6
"""Entries of one kind that are shown; the rest are counted."""
DIGEST = 64
"""Characters of a SHA-256, of which the first few tell two apart."""

CAUSES = {
    "config": "Likely because of the config: {}.",
    "data": "The configs are equal, but the data differs: {}.",
    "code": "Configs and data are equal, but the code differs: {}.",
    "arithmetic": "Config, data and code are equal, so the cause is the arithmetic: {}.",
    "unknown": "Nothing in the records differs: an operation is not deterministic, or a file was changed by hand.",
}


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Print how two runs differ; 0 whether or not they do."""
    del overrides
    found = compare_runs(Path(arguments.first), Path(arguments.second))
    for note in found.notes:
        say(note)
    put(json.dumps(as_json(found), ensure_ascii=False) if arguments.json else "\n".join(map(_safe, lines(found))))
    return 0


def _safe(line: str) -> str:
    """A line as a terminal can be shown it: names come from files that anybody may have written."""
    return printable(line).replace("\n", "\\n")


def lines(found: Comparison) -> Iterator[str]:
    """The comparison as text."""
    yield f"a: {found.first}"
    yield f"b: {found.second}"
    yield from _section("Config", found.config, most=len(found.config))
    yield from _section("Data", found.data)
    yield from _section("Code", found.code)
    yield from _section("Environment", found.environment)
    yield f"Steps: {_steps(found)}"
    if found.rows is not None:
        yield f"Metrics: differ from step {found.rows.step:,} on"
        yield from _entries(found.rows.values, missing="not finite")
    if found.weights is not None:
        yield from _weights(found.weights)
    if found.state is not None:
        named = ", ".join(found.state[1][:SHOWN]) + _more(found.state[1])
        yield f"State: differs in the checkpoint of step {found.state[0]:,}: {named}"
    if found.cause is not None:
        yield CAUSES[found.cause].format(", ".join(_few(_reasons(found))))


def _section(title: str, pairs: Sequence[Pair], most: int = SHOWN) -> Iterator[str]:
    yield f"{title}: " + (f"{len(pairs)} different" if pairs else "the same")
    yield from _entries(pairs, most)


def _steps(found: Comparison) -> str:
    """Up to which step they were seen to be equal, and where they part."""
    compared = f"{found.logged:,} logged steps and {len(found.saved):,} checkpoints were compared"
    step = found.parts_at
    equal = None if found.equal_to is None else f"equal to step {found.equal_to:,}"
    if step is not None:
        return f"the first difference is at step {step:,}; {equal or 'no earlier step to compare'} ({compared})."
    if equal is not None:
        return f"{equal}, the last that both runs have ({compared})."
    return "nothing to compare; the runs have no logged step and no checkpoint in common."


def _weights(apart: Weights) -> Iterator[str]:
    also = f"; {apart.optimizer} tensors of the optimizer" if apart.optimizer else ""
    also += f"; {apart.averaged} averaged weights" if apart.averaged else ""
    yield f"Weights: {len(apart.weights)} of {apart.of} differ in the checkpoint of step {apart.step:,}{also}"
    yield from _indented([f"{name}: {_far(far)}" for name, far in apart.weights])


def _far(far: float | None) -> str:
    return "another shape, or only in one run" if far is None else f"by {far:.3g} at most"


def _reasons(found: Comparison) -> list[str]:
    """The names of what the difference most likely comes from."""
    kinds = {"config": found.telling, "data": found.data, "code": found.code, "arithmetic": found.environment}
    return [name for name, _, _ in kinds.get(found.cause or "", [])]


def _entries(pairs: Sequence[Pair], most: int = SHOWN, missing: str = "not there") -> Iterator[str]:
    shown = [f"{name}: a {_shown(one, missing)}, b {_shown(other, missing)}" for name, one, other in pairs]
    return _indented(shown, most)


def _indented(entries: Sequence[str], most: int = SHOWN) -> Iterator[str]:
    """The first entries on a line each, below what they belong to."""
    return (f"  {entry}" for entry in _few(entries, most))


def _few(entries: Sequence[str], most: int = SHOWN) -> list[str]:
    """The first entries, and how many there are beyond them."""
    more = _more(entries, most).lstrip()
    return [*entries[:most], more] if more else list(entries)


def _more(entries: Sequence[str], most: int = SHOWN) -> str:
    return f" and {len(entries) - most} more" if len(entries) > most else ""


def _shown(value: object, missing: str) -> str:
    if value is None:
        return missing
    if isinstance(value, str) and len(value) == DIGEST:
        return value[:12]
    return inline(value)


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison as one JSON object; every difference, none left out."""
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
        "weights": None if found.weights is None else _weights_as_json(found.weights),
        "state": None if found.state is None else {"step": found.state[0], "names": found.state[1]},
    }


def _weights_as_json(apart: Weights) -> dict[str, Any]:
    return {
        "step": apart.step,
        "parameters": [{"name": name, "max_difference": far} for name, far in apart.weights],
        "of": apart.of,
        "optimizer_tensors": apart.optimizer,
        "averaged_tensors": apart.averaged,
    }


def _objects(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [{"name": name, "a": first, "b": second} for name, first, second in pairs]
