"""What an optimizer knows of parameters, carried into a network that has grown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from etude.base.says import Say
from etude.model.growth.axes import Axis
from etude.model.growth.transfer import Entry, Transfer, scattered
from etude.train.optim.slot import Slot, SlotState

REDUCED: Mapping[str, int] = {"row_var": -1, "col_var": -2}
"""What torch's Adafactor keeps of rows and columns: the dimension of which one number is left."""
LEFT_OUT: Mapping[str, int] = {"row": -1, "col": -2}
"""What other optimizers' names for that end with, and the dimension that is left out."""


class _Unknown(Exception):  # noqa: N818 - it is caught where it is raised
    """A part of a state whose shape is not understood."""


class _Placed(NamedTuple):
    """How the dimensions of a tensor follow those of its parameter; None for one that does not."""

    axes: Sequence[Axis | None]
    shape: Sequence[int]


def carried(state: SlotState, transfer: Transfer, slot: Slot, say: Say) -> SlotState:
    """The state of the old network's optimizer as one of `slot`, which has the new network's parameters.

    What has a parameter's shape goes where its values go, and is zero for new ones; rows and columns that factored
    optimizers keep go with their dimensions; single numbers, as counts of steps, are kept. A layer that is a copy has
    no state, and options of groups are those of `slot`. A state that is not understood is dropped, which is said once.
    """
    own = slot.state_dict()
    entries = {name: transfer.entries[name] for name in slot.shapes() if name in transfer.entries}
    kept: dict[str, Any] = {}
    unknown = []
    for name, entry in entries.items():
        known = state["state"].get(entry.source or "")
        if known is None or entry.is_duplicate:
            continue
        try:
            kept[name] = _whole(known) if _stays(entry, entries, slot) else _grown(known, entry, slot)
        except _Unknown:
            unknown.append(name)
    if unknown:
        say(
            f"{type(slot.optimizer).__name__} begins anew with {', '.join(unknown)}, for it is not known how its state "
            "grows."
        )
    return {
        **own,
        **_course(state, own, say),
        "state": kept,
        "gradients": _gradients(state, entries),
    }


def _stays(entry: Entry, entries: Mapping[str, Entry], slot: Slot) -> bool:
    """Whether everything that is known of a parameter stays as it is, for it does, or for all do that share it."""
    shared = entries.values() if slot.needs_closure else [entry]
    return all(one.is_unchanged for one in shared)


def _course(state: SlotState, own: SlotState, say: Say) -> SlotState:
    """How far the optimizer has come; a torch scheduler goes on where it has as many groups as before."""
    course: Any = {"steps": state["steps"]}
    if "due" in state:
        course["due"] = state["due"]
    if state.get("scheduler") is None:
        return course  # type: ignore[no-any-return]
    if len(state["groups"]) == len(own["groups"]):
        course["scheduler"] = state["scheduler"]
    else:
        say("The scheduler of the learning rate begins anew, for the optimizer has other groups of parameters.")
    return course  # type: ignore[no-any-return]


def _gradients(state: SlotState, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The gradients that were kept, where their parameters are now."""
    before = state.get("gradients", {})
    found = {}
    for name, entry in entries.items():
        gradient = before.get(entry.source or "")
        if gradient is not None and not entry.is_duplicate:
            found[name] = gradient if entry.is_unchanged else _follow("", gradient.to_dense(), entry)
    return found


def _whole(known: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, none of whose tensors are shared with the old optimizer."""
    return {key: _own(value) for key, value in known.items()}


def _own(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _grown(known: Mapping[str, Any], entry: Entry, slot: Slot) -> dict[str, Any]:
    """It with zeros for new entries. Raises _Unknown."""
    if slot.has_modes:  # it keeps weights as well as moments, and a weight of zero is no beginning
        raise _Unknown
    return {key: _part(key, value, entry) for key, value in known.items()}


def _part(key: str, value: object, entry: Entry) -> object:
    """One part of a parameter's state. Raises _Unknown."""
    match value:
        case Tensor():
            return _follow(key, value, entry)
        case None | bool() | int() | float() | str():
            return value
    raise _Unknown


def _follow(key: str, value: Tensor, entry: Entry) -> Tensor:
    shape = tuple(value.shape)
    if shape != entry.old_shape and value.numel() == 1 and value.ndim < 2:  # noqa: PLR2004 - a number, or a list of one
        return value.clone()
    axes, like = _placed(key, shape, entry)
    return scattered(value, axes, like)


def _placed(key: str, shape: tuple[int, ...], entry: Entry) -> _Placed:
    """Where the dimensions of a state's tensor go. Raises _Unknown."""
    old = entry.old_shape or ()
    axes: list[Axis | None] = list(entry.axes)
    if key in REDUCED and len(shape) == len(old):
        axes[REDUCED[key]] = None
    elif shape == old:
        return _Placed(axes, entry.new_shape)
    elif len(shape) == len(old):
        axes = [_unless_reduced(axis, size) for axis, size in zip(axes, shape, strict=True)]
    else:
        axes = _without(key, axes)
    if not _fits(shape, axes):
        raise _Unknown
    return _Placed(axes, [size if axis is None else axis.new_size for size, axis in zip(shape, axes, strict=True)])


def _unless_reduced(axis: Axis | None, size: int) -> Axis | None:
    return None if size == 1 else axis


def _without(key: str, axes: Sequence[Axis | None]) -> list[Axis | None]:
    """The dimensions that a factor keeps, by its name."""
    for end, place in LEFT_OUT.items():
        if key.endswith(end) and len(axes) >= 2:  # noqa: PLR2004 - rows and columns
            kept = list(axes)
            del kept[place]
            return kept
    return []


def _fits(shape: Sequence[int], axes: Sequence[Axis | None]) -> bool:
    if len(shape) != len(axes):
        return False
    pairs = zip(shape, axes, strict=True)
    return all(size == 1 if axis is None else size == axis.old_size for size, axis in pairs)
