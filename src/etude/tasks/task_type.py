"""What a task is to the rest: its config, its data, what of them a run keeps, its predictions and its export.

A task is a folder with one `TaskType`, and a line of `table.py`; or it is the user's own, and named by its import path.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, runtime_checkable

from etude.base.errors import ConfigError, DataError
from etude.base.says import Say
from etude.base.schedules.values import ScheduledValue
from etude.tasks.flags import Flag

if TYPE_CHECKING:
    from etude.data.feeds.feed import Feed
    from etude.tasks.aligners import Aligner
    from etude.tasks.attention import Attention
    from etude.tasks.config import Config
    from etude.train.task import Task
    from etude.train.world import World

TOKENIZERS = "tokenizers"
"""The folder of a run that holds what it keeps to be used without its data."""
ONNX = "onnx"
"""What that form of an export is called."""
CACHE = ".cache"
"""The folder beside the runs that holds prepared data."""
SKIPPED = "skipped.jsonl"

Columns = Mapping[str, Sequence[object]]
"""Values of the samples of a batch, by name."""


class Processor(Protocol):
    """What a run keeps to be used without its data: tokenizers, label sets, statistics of features, templates."""

    def save(self, folder: Path) -> None:
        """Write it whole or not at all, unless the folder is there: a run keeps what it began with."""


P = TypeVar("P", bound=Processor)
C_contra = TypeVar("C_contra", bound="Config", contravariant=True)


class Data(Protocol[P]):
    """The splits of a run, ready to be trained on."""

    processor: P
    """What they were made with."""
    splits: Mapping[str, Any]
    """By name; parts of them may listen to a run's events."""

    @property
    def skipped(self) -> int:
        """Samples left out of all splits."""
        return 0

    def write_skipped(self, path: Path) -> None:
        """List every sample left out, with its place and the reason; nothing where there is none."""
        del path

    def told(self) -> str:
        """What a run begins with: its splits and their sizes."""
        return ", ".join(f"{name} {self.size(name)}" for name in self.splits)

    def size(self, split: str) -> str:
        """How much a split holds, with its unit."""

    def fingerprints(self) -> dict[str, str]:
        """What tells one split's content from another's."""

    def only(self, split: str, held: str) -> None:
        """Leave but the split `held`, under the name `split`."""

    def sources(self) -> Sequence[object]:
        """Parts that may listen to a run's events."""
        return list(self.splits.values())

    def feed(self, split: str, *, training: bool = False, say: Say) -> "Feed":
        """Batches of a split: each sample once in a fixed order or, for training, in an order computed from the seed.

        With `train.overfit` every feed is the one fixed set.
        """

    def scheduled_values(self, feed: Any) -> Sequence[ScheduledValue]:
        """What the batches of an epoch are planned by and a schedule drives, brought into force by `feed`."""
        del feed
        return ()

    def attend(self, task: "Task", *, judged: str = "val") -> None:
        """Give a task what its evaluation compares with, and check that it takes what the splits hold.

        Its validation step sees the samples of the split `judged`.
        """
        del task, judged

    def beside(self, split: str, batch: object) -> Columns:
        """For saved outputs: what stands beside each sample of a batch that no task knows, such as its raw texts.

        `sample` is its number in the files.
        """
        del split, batch
        return {}


class Attends(Protocol):
    """What takes the attention of predictions, as long as it wants one; unless overridden it wants none."""

    @property
    def is_wanted(self) -> bool:
        """Whether it takes the next one."""
        return False

    def take(self, attention: "Attention") -> None:
        """Take one."""
        del attention


@final
class NoAttention(Attends):
    """Wants none."""


@dataclass(frozen=True)
class Asked:
    """How predictions are asked for."""

    flags: Mapping[str, object] = field(default_factory=dict)
    """Those of the task that were given, by their words."""
    json: bool = False
    """One object a line."""
    batch_size: int | None = None
    terminal: bool = False
    """Whether a person reads the answers as they come."""
    safe: Callable[[str], str] = str
    """What text goes through on its way out: a terminal would obey its control characters."""
    attention: Attends = field(default_factory=NoAttention)
    """Who takes the attention of predictions to their source."""


class Questions(Protocol):
    """The input of a prediction."""

    def lines(self) -> Iterator[list[str]]:
        """Its lines, in windows of what is there; of one that cannot be read, an empty text (see `flaw`)."""

    def whole(self) -> str:
        """All of it as one text."""

    def pieces(self) -> Iterator[bytes]:
        """Its bytes as they come, until it ends or who asks ends it."""

    def note(self, text: str) -> None:
        """Be told something of the input that costs no answer. Unless overridden: nothing is done."""
        del text

    @property
    def path(self) -> Path | None:
        """The file that was named; None where standard input is read."""
        return None

    def flaw(self, number: int) -> str | None:
        """Why the line of this number, from 0 on, cannot be read; None where it was."""
        del number
        return None

    def beside(self, text: str) -> None:
        """Be told something that is no part of the answers."""
        del text

    def unanswered(self, number: int, why: str) -> None:
        """Be told that the text of this number, from 0 on, has no answer, and go on. Unless overridden: DataError."""
        raise DataError(f"Text {number + 1} has no answer: {why}")


@dataclass(frozen=True)
class Missing:
    """What stands in the place of a prediction that there is none of: no text, as unlikely as can be."""

    error: str
    """Why there is none."""
    text: str = ""
    score: float = -math.inf
    log_probability: float = -math.inf


class Predictor(Protocol):
    """What answers from a task's weights."""

    def among(self, world: "World") -> None:
        """Share what is asked from now on with the other ranks of `world`, all of which are asked the same.

        Unless overridden, each rank answers all of it.
        """
        del world

    def answers(self, questions: Questions, asked: Asked) -> Iterator[str]:
        """What is written, line ends and all, in order, each part as soon as it is there."""

    def best(self, texts: Iterable[str]) -> Iterator[str | Missing]:
        """The best prediction of each text, in order, and why one has none."""

    def candidates(self, texts: Iterable[str], **options: int) -> Iterator[Any]:
        """For each text its predictions with their scores, best first."""

    def attention(self, text: str) -> "Attention":
        """What the best prediction of a text looks at in it. Raises ConfigError where it looks at no source."""
        del text
        raise ConfigError("This run's task has no attention to a source; a translation has.")

    def tested(self, outputs: object) -> Sequence[str] | None:
        """The best prediction of each sample, of what the test step gave of a batch; None where it gave no texts."""
        del outputs
        return None

    def references(self, batch: object) -> Sequence[str] | None:
        """What is true of each sample of a tested batch, as text; None where only the data know."""
        del batch
        return None


@dataclass(frozen=True)
class Kept:
    """What of a run goes into a folder that others can load."""

    config: "Config"
    plain: Mapping[str, Any]
    """The composed config, as plain values."""
    processor: Processor
    weights: Path
    """Where the run itself keeps them."""
    place: Path
    """What the folder will be called."""


@runtime_checkable
class TaskType(Protocol[C_contra, P]):
    """A kind of task."""

    config: "type[Config]"
    """What its configs are read as: its sections `[task]`, `[data]` and `[model]`, and what all share."""
    flags: Sequence[Flag] = ()
    """Those of `etude predict` that it takes."""

    def configs(self) -> "Sequence[type[Config]]":
        """All that its configs may be read as, where that depends on the data."""
        return [self.config]

    def config_of(self, config: Mapping[str, object]) -> "type[Config]":
        """What a config, as plain values, is read as."""
        del config
        return self.config

    def example(self, config: C_contra) -> str:
        """What `etude predict RUN` is given, for a user to see."""
        del config
        return "< lines.txt"

    def recognises(self, config: Mapping[str, object]) -> bool:
        """Whether a config, as plain values, whose task is the user's own names data of this kind."""
        del config
        return False

    def processor(self, config: C_contra, folder: Path) -> P:
        """What a run has kept in `folder`. Raises RefusedError where it is not there, StorageError where damaged."""

    def open(self, config: C_contra, splits: Sequence[str], say: Say, processor: P | None = None) -> Data[P]:
        """Open and prepare splits, with the `processor` of a run that is there already or, without, one made for them.

        A split that is divided off the training data is there with it. Raises ConfigError where the config names none,
        DataError where its files cannot be used.
        """

    def files(self, config: C_contra, split: str) -> Iterable[Path]:
        """The files that the content of a split lies in, those that its files name among them; none of a corpus.

        Raises DataError where one that the config names is not there.
        """
        from etude.data.files.named import files_named

        return files_named(config.data.split_of(split), f"data.{split}")

    def task(self, config: C_contra, processor: P) -> "Task":
        """The task with its model, initialised from (seed, names) alone; no weights of a run are loaded."""

    def counts_all_targets(self, config: C_contra) -> bool:
        """Whether each target that a feed counts is one that the loss counts, so that tokens are known ahead."""
        del config
        return False

    def check_flags(self, given: Mapping[str, object]) -> None:
        """Refuse flags that contradict each other. Raises ConfigError."""
        del given

    def predictor(self, task: "Task") -> Predictor:
        """What answers from the weights of `task`; what that cannot do is told when it is asked for."""

    def aligner(self, task: "Task", config: C_contra, processor: P) -> "Aligner":
        """What finds where the labels of samples lie. Raises ConfigError where that is not a question."""
        del config, processor
        raise ConfigError(f"etude align is for speech_recognition, but this run's task is a {type(task).__name__}.")

    def export(self, task: "Task", kept: Kept, folder: Path) -> str:
        """Write the model into the empty `folder`, as others can load it; say what it is. Raises ConfigError."""

    def onnx(self, task: "Task", kept: Kept, folder: Path) -> str:
        """Write the model into the empty `folder` as ONNX; say what it is. Raises ConfigError."""
        del task, folder
        raise ConfigError(
            f"A run of task.type = {kept.plain['task']['type']!r} has no ONNX form: speech_recognition and "
            "classification have one; leave out --format."
        )
