"""The `[data]` section: which files hold the pairs, and what is done about bad ones."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.schedules import scheduled
from etude.data.files.names import ColumnField, SplitField
from etude.data.files.skipped import AllowanceField, Policy


class DataConfig(Section):
    """Which files hold the pairs, and what is done about bad ones."""

    replaced_whole = ("train", "val", "test")
    foreign = dict.fromkeys(
        ("text", "document_separator", "split", "split_by", "block_size", "packing"),
        'it is for text, as of task.type = "language_model"',
    )

    train: Switch[SplitField] = None
    """What is trained on: a .tsv, .txt, .jsonl or .ndjson file, a list of them, two aligned files
    `{ source = "train.en", target = "train.de" }`, or a generated corpus by name."""

    val: Annotated[Switch[SplitField], means("validation", shared="always", governs=("stopping",))] = None
    """What training is judged by, given like `train`."""

    test: Annotated[Switch[SplitField], means("none", shared="always")] = None
    """What is looked at once training is over, given like `train`."""

    source: ColumnField = "source"
    """The column or field of the source text; a number counts columns from 1 and says that the file names none."""

    target: ColumnField = "target"
    """The column or field of the target text."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """How many processes load batches beside training; 0 loads in the training process."""

    max_length: Switch[scheduled(ge=1, whole=True)] = None  # type: ignore[valid-type]
    """The longest text, in tokens of either side (the end not counted), that is no bad sample. As a schedule: the
    longest that takes part in an epoch, taken up where it begins; longer ones wait."""

    order: Literal["shuffled", "sorted", "easy_first"] = "shuffled"
    """How an epoch goes through its samples: shuffled; sorted, the easiest first; easy_first does so at first, then
    shuffles. Easy is short or, with `difficulty`, what that says."""

    easy_first_epochs: Annotated[int, Field(ge=1)] = 1
    """How many epochs take the easiest first with `order = "easy_first"`."""

    difficulty: Switch[ColumnField] = None
    """The column or field of a number that says how difficult a sample is to learn."""

    max_difficulty: Switch[scheduled()] = None  # type: ignore[valid-type]
    """The greatest `difficulty` that takes part in training; a schedule is taken up where an epoch begins."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What a sample that cannot be used does: end the run with its place and reason, or be left out and listed."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @model_validator(mode="after")
    def _difficulty_is_said(self) -> Self:
        if self.max_difficulty is not None and self.difficulty is None:
            raise ValueError(
                "data.max_difficulty needs data.difficulty, which names the column of each sample's difficulty, but "
                "data.difficulty is not set"
            )
        return self

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples; one that is only too long for the present epoch is none."""
        longest = self.max_length if isinstance(self.max_length, int) else None
        return Policy(longest, self.on_bad_sample, self.max_skipped)
