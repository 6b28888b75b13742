"""The stage that aligns: where in its recordings the labels of a run lie, stored for those that are trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from etude.app.runs.identity import numbers_of
from etude.app.runs.run import Run
from etude.app.stages.names import OF, Reference, Weights
from etude.app.stages.node import Made
from etude.app.stages.stage import Artifact, Artifacts, hashed
from etude.app.stages.told import Composed, Told
from etude.base.config.command import Override
from etude.base.config.section import Section
from etude.base.errors import ConfigError, DataError
from etude.base.says import Say
from etude.tasks.aligners import SHARD, AlignmentAsked, Stored
from etude.tasks.own import task_type
from etude.tasks.task_type import TaskType

LINEAR = "linear"
OF_ALIGNMENTS = ("task", "data", "tokenizer", "model")
"""Sections that a linear alignment depends on."""
LEFT_OUT = ("loss", "init", "callbacks")
"""Sections that a linear alignment has no use for."""
KEEP = "keep_better"
NO_NUMBERS = ("batch_size", "shard_size")
NAMED = 5


class AlignKeys(Section):
    """A stage with `do = "align"`."""

    model: str | None = None
    """Whose network aligns: a stage (`ctc`, `ctc/best`, `ctc/last`), or the folder of a run; `linear` needs none."""
    topology: Literal["ctc", "hmm", "transducer", "linear"] | None = None
    """How labels follow each other in frames; that of the network unless given."""
    prior_scale: float = 0.0
    """Takes this much of the log-priors of labels off."""
    priors: Literal["counted", "averaged"] | None = None
    """Whether these are counted in alignments, or averaged over what the network says; unset, as is usual of it."""
    splits: Annotated[
        list[Literal["train", "val", "test"]], Field(min_length=1, default_factory=lambda: ["train", "val"])
    ]
    """The splits that are aligned, each into a folder of its name."""
    keep_better: bool | str = False
    """Keeps, of each recording, the alignment of before if its path has a higher score: that of the round before, or of
    the stage that is named."""
    max_missing: int = Field(0, ge=0)
    """Most recordings of a split that may have no alignment."""
    batch_size: int | None = Field(None, ge=1)
    """Recordings computed together."""
    shard_size: int = Field(SHARD, ge=1)
    """Recordings stored at once."""

    @property
    def asked(self) -> AlignmentAsked:
        """The same, as the task is asked for it."""
        return AlignmentAsked(
            topology=self.topology,
            prior_scale=self.prior_scale,
            priors=self.priors,
            batch_size=self.batch_size,
            shard_size=self.shard_size,
        )


@dataclass(frozen=True)
class Align:
    """Aligns splits, each into a folder of its own."""

    name: str
    keys: AlignKeys
    weights: Weights | None
    """Whose network aligns; None where none does."""
    changes: Sequence[Override] = ()
    """What it changes in the config of that run."""
    composed: Composed | None = None
    """The config of an alignment without a network."""
    before: Reference | None = None
    """The stage whose alignments are kept where they are better."""
    old: Path | None = None
    """Where these lie."""

    def inputs(self) -> Sequence[str]:
        """The stage that it takes weights from, and those that its config names."""
        if self.composed is not None:
            return tuple(dict.fromkeys(one.stage for one in self.composed.references.values()))
        assert self.weights is not None
        kept = (one.stage for one in filter(None, [self.before]))
        return (*self.weights.takes(), *kept)

    def identity(self, inputs: Artifacts) -> str:
        """A hash of its keys, and of what it takes."""
        told: dict[str, Any] = self.keys.model_dump(exclude={OF[0], KEEP, *NO_NUMBERS})
        told[KEEP] = None if self.before is None else str(self.before)
        told["model"] = None if self.weights is None else self.weights.told()
        told["changes"] = [(one.key, one.value) for one in self.changes]
        if self.composed is not None:
            told["config"] = _numbers_of(self.composed)
        return hashed("align", told, inputs)

    def run(self, folder: Path, inputs: Artifacts, say: Say) -> Artifact:
        """Align what is not aligned yet. Raises DataError where more than `max_missing` have no alignment."""
        metrics: dict[str, float] = {}
        for split in self.keys.splits:
            stored = self._enough(folder / split, split, say)
            metrics |= {f"{split}/aligned": stored.aligned, f"{split}/missing": len(stored.missing)}
        return Artifact(self.name, folder, self.identity(inputs), metrics=metrics)

    def _enough(self, folder: Path, split: str, say: Say) -> Stored:
        """Align a split. Raises DataError where too many have no alignment."""
        stored = self._aligned(folder, split, say)
        missing = len(stored.missing)
        say(f"{split}: {stored.aligned:,} of {stored.aligned + missing:,} are aligned.")
        if missing > self.keys.max_missing:
            raise DataError(_too_many(self.name, split, stored.missing, self.keys.max_missing))
        return stored

    def _aligned(self, folder: Path, split: str, say: Say) -> Stored:
        if self.composed is not None:
            return self._evenly(self.composed, folder, split, say)
        assert self.weights is not None
        run = Run(self.weights.run, overrides=self.changes, say=say)
        device = run.loaded.config.train.device
        old = None if self.old is None else self.old / split
        asked = asdict(replace(self.keys.asked, better_of=old, must_compare=False))
        return run.align(split, folder=folder, weights=self.weights.which, device=device, **asked)

    def _evenly(self, composed: Composed, folder: Path, split: str, say: Say) -> Stored:
        """Align without a network: the task is made for its labels alone."""
        config = composed.loaded.config
        kind = task_type(config)
        processor = kind.open(config, ["train"], say).processor
        return kind.aligner(kind.task(config, processor), config, processor).align(split, folder, self.keys.asked, say)


def _numbers_of(composed: Composed) -> dict[str, object]:
    """The keys of a config that change a linear alignment."""
    numbers = numbers_of(type(composed.loaded.config), composed.named())
    return {key: value for key, value in numbers.items() if key.partition(".")[0] in OF_ALIGNMENTS}


def _too_many(name: str, split: str, missing: Mapping[str, str], most: int) -> str:
    named = "; ".join(f"{place}: {why.removesuffix('.')}" for place, why in list(missing.items())[:NAMED])
    return (
        f'stage "{name}": {len(missing):,} recordings of {split} could not be aligned, more than max_missing = {most}: '
        f"{named}{', ...' if len(missing) > NAMED else ''}."
    )


def align(told: Told) -> Made:
    """A stage that aligns. Raises ConfigError where what it names cannot align."""
    keys = told.keys(AlignKeys)
    if keys.topology == LINEAR:
        return _linear(told, keys)
    if keys.model is None:
        raise ConfigError(
            told.entry.said(
                f'model is missing: name the stage that aligns, or take topology = "linear" ({told.entry.origin}).'
            )
        )
    return _by_network(told, keys, keys.model)


def _linear(told: Told, keys: AlignKeys) -> Made:
    """A stage that aligns without a network."""
    if keys.model is not None:
        raise ConfigError(
            told.entry.said(f'model is for a network, but topology "linear" asks none ({told.where("model")}).')
        )
    composed = told.config([*AlignKeys.model_fields], LEFT_OUT)
    _refuse_others(told, task_type(composed.loaded.config))
    stage = Align(told.name, keys, None, (), composed)
    return Made(
        stage,
        composed.dotted(),
        composed,
        written=_written(keys),
        own=tuple(AlignKeys.model_fields),
        splits=tuple(dict.fromkeys(("train", *keys.splits))),  # whose labels are those of the train split
    )


def _by_network(told: Told, keys: AlignKeys, model: str) -> Made:
    """A stage whose network aligns."""
    weights = told.names.weights(told.entry, OF[0], model, told.where(OF[0]))
    changes = told.changes(AlignKeys)
    before = _before(told, keys)
    given = {OF[0]: weights.reference, KEEP: before}
    references = {key: one for key, one in given.items() if one is not None}
    old = None if before is None else told.names.path(before)
    return Made(
        Align(told.name, keys, weights, changes, before=before, old=old),
        references,
        used=told.of_model(weights, AlignKeys),
        written={**_written(keys), KEEP: False, **{key: str(one) for key, one in references.items()}},
        splits=keys.splits,
    )


def _written(keys: AlignKeys) -> dict[str, object]:
    """The keys of the stage as a composed config holds them."""
    return {"do": "align", **keys.model_dump(exclude_unset=True)}


def _before(told: Told, keys: AlignKeys) -> Reference | None:
    """The stage whose alignments are kept where they are better. Raises ConfigError where that leaves none."""
    entry = told.entry
    match keys.keep_better:
        case str() as text:
            return _named(told, text)
        case True if entry.round:
            return Reference(entry.first if entry.round == 1 else f"{entry.first}-{entry.round}", "")
    return None


def _named(told: Told, text: str) -> Reference:
    """Another stage that aligns, by its name."""
    entry, where = told.entry, told.where(KEEP)
    found = told.names.find(entry, text)
    if found is None or told.names.entry(found).do != "align":
        raise ConfigError(told.names.unknown(entry, KEEP, text, "one that aligns", where))
    told.names.refuse_itself(entry, KEEP, found, where)
    return found


def _refuse_others(told: Told, kind: TaskType[Any, Any]) -> None:
    """Refuse a task that has nothing to align."""
    if not can_align(kind):
        raise ConfigError(
            told.entry.said(f'do = "align" is for a task that can align, as speech_recognition ({told.entry.origin}).')
        )


def can_align(kind: TaskType[Any, Any]) -> bool:
    """Whether a kind of task has anything to align."""
    return type(kind).aligner is not TaskType.aligner
