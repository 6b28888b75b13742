"""The order of stages: that of the file, as far as each comes after what it names."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from etude.app.stages.node import Node
from etude.base.errors import ConfigError


def ordered(nodes: Sequence[Node]) -> list[Node]:
    """The stages, each after those that it takes something from. Raises ConfigError for a circle."""
    _refuse_unknown(nodes)
    left, done = list(nodes), dict[str, Node]()
    while left:
        ready = next((node for node in left if done.keys() >= set(node.stage.inputs())), None)
        if ready is None:
            raise ConfigError(_circle(left))
        left.remove(ready)
        done[ready.name] = ready
    return list(done.values())


def _refuse_unknown(nodes: Sequence[Node]) -> None:
    """Refuse a stage of the user's own that takes from one that there is not."""
    known = {node.name for node in nodes}
    for node in nodes:
        for name in node.stage.inputs():
            if name not in known:
                raise ConfigError(node.told.entry.said(f'it takes from "{name}", which is not a stage.'))


def _circle(left: Sequence[Node]) -> str:
    """A sentence about stages that wait for each other."""
    nodes = {node.name: node for node in left}
    seen = [left[0].name]
    while seen[-1] not in seen[:-1]:
        seen.append(next(name for name in nodes[seen[-1]].stage.inputs() if name in nodes))
    circle = seen[seen.index(seen[-1]) :]
    parts = ", ".join(_edge(nodes[one], other) for one, other in pairwise(circle))
    return f"The stages wait for each other: {' -> '.join(circle)} ({parts})."


def _edge(node: Node, other: str) -> str:
    """Which key of a stage names another, and where."""
    key = next((key for key, found in node.made.references.items() if found.stage == other), "inputs")
    return f'"{node.name}" names "{other}" by {key}, {node.where(key)}'


def following(nodes: Sequence[Node], names: Sequence[str]) -> Iterator[str]:
    """The names of these stages and of all that depend on them; `nodes` in their order."""
    found = set(names)
    for node in nodes:
        if node.name in found or found & set(node.stage.inputs()):
            found.add(node.name)
            yield node.name


def by_name(nodes: Sequence[Node]) -> Mapping[str, Node]:
    """The stages by name."""
    return {node.name: node for node in nodes}
