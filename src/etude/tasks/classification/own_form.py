"""What of `[data]` an exported model needs to be read again."""

from collections.abc import Mapping

from etude.tasks.task_type import Kept

KEPT = ("type", "label", "labels", "separator", "targets")
"""Keys that say what samples are and what is predicted of them."""


def data_of(kept: Kept) -> Mapping[str, object]:
    """The section `[data]` of an exported model, without its files."""
    data = kept.plain["data"]
    return {key: data[key] for key in KEPT if key in data}
