"""What stages say of each other that cannot be: found before the first of them runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etude.app.stages.align import Align, can_align
from etude.app.stages.graph import by_name
from etude.app.stages.names import ALIGN, BUILT_IN
from etude.app.stages.node import Node
from etude.app.stages.tables import Entry
from etude.base.config.nest import value_at
from etude.base.config.writing import inline
from etude.base.errors import ConfigError
from etude.tasks.own import task_type

ALIGNMENTS = "loss.alignments"
ALIKE = (("task", "type"), ("tokenizer",), ("model", "subsampling"), ("data", "features", "shift"))
"""What alignments are of, as a config has it: the labels and the frames."""
HEADS = {"ctc": "ctc", "hmm": "framewise", "transducer": "transducer"}
"""The loss that a network must be trained with to align in a topology."""


def check_fit(nodes: Sequence[Node]) -> None:
    """Refuse stages that do not go together. Raises ConfigError, which names the stages, the key and the line."""
    known = by_name(nodes)
    problems = [problem for node in nodes for problem in _problems(node, known)]
    if problems:
        raise ConfigError(problems)


def _problems(node: Node, known: Mapping[str, Node]) -> Iterator[str]:
    match node.stage:
        case Align() as stage:
            yield from _of_aligning(node, stage, known)
    reference = node.made.references.get(ALIGNMENTS)
    if reference is not None:
        yield from _of_alignments(node, known[reference.stage], str(reference), known)


def _of_aligning(node: Node, stage: Align, known: Mapping[str, Node]) -> Iterator[str]:
    """What speaks against the network that a stage aligns by."""
    owner = _owner(stage)
    config = None if owner is None else _config(known[owner.name])
    if config is None or owner is None:
        return
    said, named = node.told.entry.said, f'model names "{owner.name}", whose'
    if not can_align(task_type(config)):
        yield said(f"{named} task.type {config.task.type} aligns nothing ({node.where('model')}).")
        return
    yield from map(said, _of_loss(node, stage, known[owner.name]))


def _of_loss(node: Node, stage: Align, trained: Node) -> Iterator[str]:
    """What speaks against the loss that the network of a stage is trained with."""
    loss, heads = _loss(trained)
    topology = stage.keys.topology or ""
    needed = HEADS.get(topology)
    if needed is not None and needed not in heads:
        yield (
            f'topology "{topology}" needs a network trained with loss.type {needed}, but that of '
            f'"{trained.name}" is {loss} ({node.where("topology")}).'
        )
    elif set(heads).isdisjoint(HEADS.values()):
        yield (
            f'model names "{trained.name}", whose loss.type {loss} cannot align: it takes ctc or framewise '
            f"({node.where('model')})."
        )


def _owner(stage: Align) -> Entry | None:
    """The stage that trains the network of one that aligns."""
    return None if stage.weights is None else stage.weights.owner


def _config(node: Node) -> Any:
    return None if node.made.composed is None else node.made.composed.loaded.config


def _loss(node: Node) -> tuple[str, Sequence[str]]:
    """The type of a stage's loss, and the heads that it trains; a frame-wise one may have that of a transducer."""
    loss = _data(node)["loss"]
    heads = loss.get("heads", [loss["type"]])
    return loss["type"], [*heads, *filter(None, [loss.get("head")])]


def _data(node: Node) -> Mapping[str, Any]:
    return {} if node.made.composed is None else node.made.composed.loaded.data


def _of_alignments(node: Node, other: Node, text: str, known: Mapping[str, Node]) -> Iterator[str]:
    """What speaks against the alignments that a stage is trained on."""
    if other.do not in {ALIGN, *BUILT_IN}:
        return
    said, where = node.told.entry.said, node.where(ALIGNMENTS)
    if other.do != ALIGN:
        yield said(f'{ALIGNMENTS} names "{text}", which leaves no alignments: its do is "{other.do}" ({where}).')
        return
    for key, theirs, ours in _unlike(_aligned_as(other, known), _data(node)):
        yield said(f'{ALIGNMENTS} names "{text}", which aligns for {key} = {theirs}, but here it is {ours} ({where}).')


def _unlike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for place in ALIKE:
        one, other = value_at(theirs, place), value_at(ours, place)
        if theirs and one != other:
            yield ".".join(place), inline(one), inline(other)


def _aligned_as(node: Node, known: Mapping[str, Node]) -> Mapping[str, Any]:
    """The config of what a stage aligns; nothing of a run of elsewhere."""
    match node.stage:
        case Align(composed=None) as stage if owner := _owner(stage):
            return _data(known[owner.name])
    return _data(node)
