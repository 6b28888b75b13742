"""What stages mean by a name: `ctc`, `ctc/best`, `ctc/last`, or a file of its folder, in the place of a path."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from etude.app.runs.pipelines import shared_by
from etude.app.stages.tables import TRAIN, Entry
from etude.base.config.composing import Layer, Origin, dotted
from etude.base.config.fields import absolute
from etude.base.config.lines import Key
from etude.base.config.path_places import paths_of
from etude.base.errors import ConfigError
from etude.base.files import sha256_of
from etude.base.near import did_you_mean
from etude.tasks.config import Config
from etude.tasks.run_files import CONFIG
from etude.tasks.task_type import CACHE, TOKENIZERS
from etude.train.memory.checkpoint.naming import FOLDER, step_name
from etude.train.memory.checkpoint.store import BEST, LAST, Store

AVERAGE, ALIGN, EVALUATE = "average", "align", "evaluate"
AVERAGED = "average"
"""The folder of an average in that of its stage."""
MODELS = (TRAIN, AVERAGE)
"""Kinds of stages that leave weights."""
BUILT_IN = (TRAIN, ALIGN, AVERAGE, EVALUATE)
OF = ("model", "of")
"""Keys by which a stage names whose weights it takes."""


class Reference(NamedTuple):
    """A stage that is named in the place of a path."""

    stage: str
    rest: str
    """What of it is meant, such as `best`; empty for all of it."""

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.stage}/{self.rest}" if self.rest else self.stage


@dataclass(frozen=True)
class Weights:
    """Weights that a stage takes."""

    run: Path
    """The folder of the run that they are of."""
    which: str
    """`best`, `last`, a step, or the folder where they lie."""
    reference: Reference | None
    """The stage that leaves them; None for those of a run of elsewhere."""
    owner: Entry | None
    """The stage that trains them."""

    def told(self) -> object:
        """What tells them from others: the name of the stage or, of a run of elsewhere, hashes."""
        if self.reference is not None:
            return str(self.reference)
        store = Store(self.run / FOLDER)
        found = store.link(self.which) or store.link(LAST) or Path(self.which)
        files = sorted(found.glob("*.safetensors")) + sorted((self.run / TOKENIZERS).glob("*"))
        return {path.name: sha256_of(path) for path in files if path.is_file()}

    def takes(self) -> tuple[str, ...]:
        """The stage that they come from."""
        return () if self.reference is None else (self.reference.stage,)


@final
class Names:
    """The stages of a pipeline, by name."""

    def __init__(self, folder: Path, entries: Sequence[Entry]) -> None:
        self.folder = folder
        shared = shared_by(folder)
        self.cache = None if shared is None else shared / CACHE
        """Where data is kept prepared, unless that is for each config to say."""
        self._entries = {entry.name: entry for entry in entries}

    def find(self, entry: Entry, text: str) -> Reference | None:
        """What a stage means by a text; None where it names no stage."""
        head, _, rest = str(text).partition("/")
        head = entry.scope.get(head, head)
        return Reference(head, rest) if head in self._entries else None

    def entry(self, reference: Reference) -> Entry:
        """The stage that is meant."""
        return self._entries[reference.stage]

    def path(self, reference: Reference) -> Path:
        """Where that which is meant will lie."""
        entry, folder = self._entries[reference.stage], self.folder / reference.stage
        rest = reference.rest
        if entry.do == TRAIN and (rest in {BEST, LAST} or rest.isdecimal()):
            return folder / FOLDER / (step_name(int(rest)) if rest.isdecimal() else rest)
        if entry.do == AVERAGE and rest in {"", BEST, LAST}:
            return folder / AVERAGED
        return folder / rest if rest else folder

    def weights(self, entry: Entry, key: str, text: str, where: Origin | None) -> Weights:
        """The weights that a stage names. Raises ConfigError where there are none, or will be none."""
        found = self.find(entry, text)
        if found is None:
            return self._elsewhere(entry, key, text, where)
        self.refuse_itself(entry, key, found, where)
        owner = self._entries[found.stage]
        if owner.do == TRAIN:
            return Weights(self.folder / owner.name, found.rest or BEST, found, owner)
        if owner.do != AVERAGE:
            raise ConfigError(
                entry.said(f'{key} is "{text}", but that stage leaves no weights: it must train or average ({where}).')
            )
        named = next((one for one in map(owner.given, OF) if isinstance(one, str)), "")
        inner = self.weights(owner, OF[0], named, owner.origin)
        return Weights(inner.run, str(self.path(found)), found, inner.owner)

    def _elsewhere(self, entry: Entry, key: str, text: str, where: Origin | None) -> Weights:
        """Weights of a run that is there."""
        path = absolute(text)
        if (path / CONFIG).is_file():
            return Weights(path, BEST, None, None)
        if path.parent.name == FOLDER and path.is_dir():
            return Weights(path.parent.parent, str(path), None, None)
        if path.name in {BEST, LAST} and (path.parent / CONFIG).is_file():
            return Weights(path.parent, path.name, None, None)
        raise ConfigError(self.unknown(entry, key, text, "the folder of a run", where))

    def unknown(self, entry: Entry, key: str, text: str, what: str, where: Origin | None) -> str:
        """A sentence about a name that is neither a stage's nor a path's."""
        known, others = [*self._entries, *entry.scope], f"the stages are {', '.join(self._entries)}."
        hint = did_you_mean(str(text).partition("/")[0], known, others, quote='"')
        return entry.said(f'{key} is "{text}", which is neither a stage nor {what}; {hint} ({where}).')

    def refuse_itself(self, entry: Entry, key: str, found: Reference, where: Origin | None) -> None:
        """Raise ConfigError for a stage that names itself."""
        if found.stage == entry.name:
            raise ConfigError(entry.said(f"{key} names the stage itself ({where})."))

    def in_config(self, entry: Entry, root: type[Config], layer: Layer) -> dict[Key, Reference]:
        """The stages that a composed config names where paths stand. Raises ConfigError for names of none."""
        found: dict[Key, Reference] = {}
        problems = []
        for place, text in dict([*paths_of(root, layer.data), *_checkpoints(layer.data)]).items():
            reference, where = self.find(entry, text), layer.origin_of(place)
            if reference is not None:
                self.refuse_itself(entry, dotted(place), reference, where)
                found[place] = reference
            elif _is_artifact(place) and not absolute(text).exists():
                problems.append(self.unknown(entry, dotted(place), text, "a path that exists", where))
        if problems:
            raise ConfigError(problems)
        return found


FROM: Key = ("init", "from")
CHECKPOINT = "checkpoint"


def _is_artifact(place: Key) -> bool:
    """Whether something that another run has made stands at a place."""
    return place in {("loss", "alignments"), FROM} or (place[:2] == FROM and place[-1] == CHECKPOINT)


def as_written(place: Key) -> Key:
    """Where the checkpoint of a lone table of `init.from` stands once the config is read, which makes a list of it."""
    return (*FROM, 0, CHECKPOINT) if place in {FROM, (*FROM, CHECKPOINT)} else place


def _checkpoints(data: Mapping[str, object]) -> Iterator[tuple[Key, str]]:
    """What `init.from` names: a path alone, a table, or several."""
    match data:
        case {"init": {"from": str() as text}}:
            yield FROM, text
        case {"init": {"from": {"checkpoint": str() as text}}}:
            yield (*FROM, CHECKPOINT), text
        case {"init": {"from": list() as tables}}:
            yield from _of_tables(tables)


def _of_tables(tables: Sequence[object]) -> Iterator[tuple[Key, str]]:
    for number, table in enumerate(tables):
        match table:
            case {"checkpoint": str() as text}:
                yield (*FROM, number, CHECKPOINT), text
