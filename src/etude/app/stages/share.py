"""The stage that shares: the first steps of another run, up to a moment, with that run's config."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from etude.app.build import imported_files
from etude.app.fork.about import read_about
from etude.app.fork.kept import Kept
from etude.app.fork.start import PARENTS_ROWS, SHARED
from etude.app.fork.way import Build, Way, find_way
from etude.app.runs.diff import by_step, first_difference
from etude.app.runs.folder import content_key, has_checkpoint, remove_tree
from etude.app.stages.stage import Artifact, Artifacts, hashed
from etude.base.errors import RefusedError
from etude.base.files import sha256_of
from etude.base.says import Say
from etude.tasks.config import LoadedConfig
from etude.train.fit import fit
from etude.train.watch.record import METRICS, read_rows

MADE_FROM = ("parent_config_sha256", "until", "data", "code")
"""What of a fork's origin its shared steps depend on."""


@dataclass(frozen=True)
class Share:
    """Takes over the steps of a fork's parent, or takes them again, up to the moment where the fork leaves it."""

    name: str
    loaded: LoadedConfig
    build: Build

    def inputs(self) -> Sequence[str]:
        """None: its parent is no part of this run."""
        return ()

    def identity(self, inputs: Artifacts) -> str:
        """A hash of the parent's config, data and code, and of the moment."""
        about = asdict(read_about(self.loaded.config.folder))
        return hashed("share", {name: about[name] for name in MADE_FROM}, inputs)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Artifact:
        """Give the checkpoint of the moment; once the fork has left its parent, where that checkpoint lay.

        Raises RefusedError where a change of the fork's cannot be taken, or the parent's steps cannot be.
        """
        shared = folder / SHARED
        if has_checkpoint(folder):
            if shared.is_dir():
                remove_tree(shared)  # a kill came between the last two moves
            return Artifact(self.name, shared, self.identity(inputs))
        way = find_way(self.loaded, folder, self.build)
        way.judge()
        newest = way.newest(say)
        if newest is None or not Kept.at(newest).has_come_to(way.until):
            newest = _take_steps(way, say)
        return Artifact(self.name, newest, self.identity(inputs))


def _take_steps(way: Way, say: Say) -> Path:
    """Take the parent's steps up to the moment, as the parent would."""
    _refuse_other_code(way)
    job = replace(way.job(way.before, say), pause=way.until, loggers=())
    _refuse_other_data(way)
    result = fit(job)
    if not way.until.reached(result.progress):
        raise RefusedError(
            f"{way.about.parent} ends at step {result.progress.step:,} ({result.reason}), before {way.until}: give an "
            f"earlier --at."
        )
    _compare(way, say)
    newest = way.newest(say)
    assert newest is not None
    return newest


def _refuse_other_code(way: Way) -> None:
    for file in imported_files(way.before.config):
        if way.about.code.get(str(file), digest := sha256_of(file)) != digest:
            raise RefusedError(
                f"{file} has changed since {way.about.parent} was trained with it, so its steps cannot be recomputed; "
                f"restore it, or give --at a step of which it has a checkpoint."
            )


def _refuse_other_data(way: Way) -> None:
    for name, content in way.fingerprints().items():
        if way.about.data.get(name, content) != content:
            raise RefusedError(
                f"The content of {content_key(name)} (or how it is tokenised) has changed since {way.about.parent} was "
                f"trained on it, so its steps cannot be recomputed; restore it, or give --at a step of which it has a "
                f"checkpoint."
            )


def _compare(way: Way, say: Say) -> None:
    """Say where the steps that were taken again are not the parent's after all, and why that may be."""
    begun = way.about.from_checkpoint or 0
    theirs, ours = (_rows_after(begun, way.shared / name, say) for name in (PARENTS_ROWS, METRICS))
    apart = first_difference(theirs, ours)
    repeated = apart is None if theirs.keys() & ours.keys() else None
    replace(way.about, repeated=repeated).write(way.folder)
    if apart is not None:
        key, old, new = apart.values[0]
        say(
            f"The recomputed steps differ: at step {apart.step:,} {key} is {new} and was {old}. The "
            f"parent computed them on another machine, with other versions, or with another max_duration; the fork "
            f"shares its steps up to {begun:,}, and continues with its own."
        )


def _rows_after(step: int, path: Path, say: Say) -> dict[int, dict[str, object]]:
    return {at: row for at, row in by_step(read_rows(path, say)).items() if at > step}
