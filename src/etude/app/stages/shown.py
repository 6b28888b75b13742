"""A pipeline as text: what its stages have measured, and how each stands."""

from collections.abc import Iterator, Sequence

from etude.app.layout import columns
from etude.app.stages.done import FINISHED, Standing, left_by, standing_of
from etude.app.stages.node import Node
from etude.app.stages.pipeline import Pipeline, Report
from etude.app.stages.stage import Artifact
from etude.callbacks.line import span

HEADS = ("stage", "do", "", "time", "measured")
SHOWN = 3
"""Metrics of a stage in a table."""
WAITING = "waiting"
"""How a stage stands whose inputs are not there yet."""


def summary(reports: Sequence[Report]) -> Iterator[str]:
    """The stages that have run or were done: the time of each, and what it measured."""
    yield from columns([HEADS, *map(_row, reports)], right=[HEADS.index("time")])


def _row(report: Report) -> tuple[str, ...]:
    node, found = report.node, report.standing
    return (node.name, node.do, "ran" if report.ran else "was done", _time(found), _measured(found.artifact))


def _time(found: Standing) -> str:
    return span(float(found.record["seconds"])) if found.record else ""


def _measured(artifact: Artifact | None) -> str:
    metrics = {} if artifact is None else artifact.metrics
    named = [f"{name} {value:.4g}" for name, value in metrics.items() if name != "val/epoch_loss"]
    return ", ".join(named[:SHOWN])


def standings(pipeline: Pipeline) -> list[tuple[Node, Standing]]:
    """How each stage stands; one after another that will run again waits for it."""
    found: list[tuple[Node, Standing]] = []
    artifacts: dict[str, Artifact] = {}
    for node in pipeline.nodes:
        missing = [name for name in node.stage.inputs() if name not in artifacts]
        stands = _waiting(node, missing) if missing else standing_of(node, artifacts)
        if stands.state == FINISHED and stands.artifact is not None:
            artifacts[node.name] = stands.artifact
        found.append((node, stands))
    return found


def _waiting(node: Node, missing: Sequence[str]) -> Standing:
    """How a stage stands that follows others which are not done."""
    found = left_by(node)
    return Standing(found.state if found.record is None else WAITING, f"after {' and '.join(missing)}")


def graph(stands: Sequence[tuple[Node, Standing]]) -> Iterator[str]:
    """The stages in order: what each takes, and how it stands."""
    rows = [("stage", "do", "takes", "state", "")]
    for node, found in stands:
        takes = ", ".join(dict.fromkeys(map(str, node.made.references.values())))
        rows.append((node.name, node.do, takes or "-", found.state, found.why or _measured(found.artifact)))
    yield from columns(rows)


def as_json(stands: Sequence[tuple[Node, Standing]]) -> list[dict[str, object]]:
    """The same as JSON holds it."""
    return [
        {
            "name": node.name,
            "do": node.do,
            "inputs": list(node.stage.inputs()),
            "state": found.state,
            "why": found.why,
            "metrics": {} if found.artifact is None else dict(found.artifact.metrics),
            "folder": str(node.folder),
        }
        for node, found in stands
    ]
