"""`fork.json`: what a fork's folder says about where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from etude.app.runs.changes import Change
from etude.base.durations import Duration
from etude.base.errors import StorageError
from etude.base.files import read_json, write_json

FORK = "fork.json"


@dataclass(frozen=True)
class About:
    """Where a fork comes from."""

    parent: str
    """The folder of the run that it shares its first steps with."""
    parent_config_sha256: str
    at: str
    """The moment at which it leaves its parent, as it was asked for, ..."""
    until: str
    """... and as a length that needs no length of the run."""
    step: int | None
    """The step at which it has left its parent; None as long as it has not."""
    from_checkpoint: int | None
    """The step of the parent's checkpoint that was taken over; None where there was none."""
    changes: Mapping[str, list[object]]
    """What of the config was changed: by key, what it was and what it is."""
    data: Mapping[str, str] = field(default_factory=dict)
    """The fingerprints of the data that the parent was trained on."""
    code: Mapping[str, str] = field(default_factory=dict)
    """The hashes of the files that it was trained with."""
    begun_anew: Sequence[str] = ()
    """What of the state the parent had nothing for that the fork could go on from."""
    repeated: bool | None = None
    """Whether the steps that were taken again are the parent's to the bit; None where there were none to compare."""

    @property
    def moment(self) -> Duration:
        """When it leaves its parent."""
        return Duration.parse(self.until)

    def write(self, folder: Path) -> None:
        """Write `fork.json`, in one move."""
        write_json(folder / FORK, asdict(self))


def read_about(folder: Path) -> About:
    """What a fork's folder says about where it comes from. Raises StorageError where that is damaged."""
    path = folder / FORK
    try:
        found = About(**read_json(path))
        _ = found.moment, dict(found.changes)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    return found


def as_json(changes: Sequence[Change]) -> dict[str, list[object]]:
    """Changes by key: what it was, and what it is; null stands for a key that is not set."""
    return {change.key: [change.old, change.new] for change in changes}
