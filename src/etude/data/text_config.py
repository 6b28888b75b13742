"""The keys of `[data]` that say what text a language model learns from, and how it comes in batches."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from etude.base.config.fields import PathField, PathOr, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.schedules import scheduled
from etude.data.files.skipped import AllowanceField, Policy
from etude.data.files.text_split import SplitRule

WHOLE_SUM = 1e-9


def text_corpus_names() -> list[str]:
    """Name the corpora that are found at run time."""
    from etude.data.corpora.python_sources import NAMES

    return sorted(NAMES)


PathOrName = Annotated[PathField | str, PathOr(text_corpus_names)]


class WeighedText(Section):
    """A part of a mixture."""

    path: PathOrName | Annotated[tuple[PathField, ...], Field(min_length=1)]
    """A file, a folder, a list of them, or a corpus by name."""

    weight: scheduled(ge=0) = 1.0  # type: ignore[valid-type]
    """What share of all rows is drawn from it, against the weights of the others; taken up where an epoch begins."""


def _adds_up(shares: tuple[float, ...]) -> bool:
    return len(shares) in {2, 3} and min(shares) > 0 and math.isclose(sum(shares), 1, abs_tol=WHOLE_SUM)


TextField = (
    PathOrName
    | Annotated[tuple[WeighedText, ...], Field(min_length=1)]
    | Annotated[tuple[PathField, ...], Field(min_length=1)]
)


class TextDataConfig(Section):
    """What text is learned from, and how it comes in batches."""

    replaced_whole = ("train", "val", "test")
    foreign = dict.fromkeys(
        ("source", "target", "difficulty", "max_difficulty", "easy_first_epochs"),
        'it is for pairs of texts, as of task.type = "translation"',
    ) | {"max_length": "the length of a row of text is data.block_size"}

    train: Switch[TextField] = None
    """What is trained on: a file or folder of text, a list of them, a corpus by name (`python`, `python_docs`), or a
    mixture `[{ path = "a/", weight = 3 }, { path = "b.jsonl" }]`."""

    val: Annotated[Switch[TextField], means("validation", shared="always", governs=("stopping",))] = None
    """What training is judged by, given like `train`; a part of `train` unless given."""

    test: Annotated[Switch[TextField], means("none", shared="always")] = None
    """What is looked at once training is over, given like `train`."""

    text: Annotated[str, Field(min_length=1)] = "text"
    """The field of JSON lines, and the column of Parquet, that holds the text."""

    document_separator: Switch[str] = None
    """What stands between two documents of a plain text file; without it a file is one document."""

    split: Switch[Literal["auto"] | tuple[float, ...]] = "auto"
    """The shares of train, val and, where there is a third, test, where `val` names no files. `auto` is 0.98, 0.01 and
    0.01 by document or, of fewer than 100 documents, 0.9 and 0.1 by position; `false` divides nothing."""

    split_by: Literal["auto", "document", "position"] = "auto"
    """What is divided: the documents, by a hash of how they begin, or all characters in a row, the last ones for val
    and test; `auto` is by document where the smallest part gets one."""

    block_size: scheduled(ge=1, whole=True) = 256  # type: ignore[valid-type]
    """How many tokens a row of a batch has; a schedule is taken up where an epoch begins."""

    packing: Literal["stream", "documents"] = "stream"
    """What a row holds: a stretch of all documents in a row, or whole documents, none of which sees another."""

    order: Literal["auto", "shuffled", "contiguous"] = "auto"
    """Whether rows are shuffled, or each goes on where that of the batch before ended, as a carried state needs;
    `auto` is contiguous with `train.carry_hiddens`, else shuffled."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """How many processes load batches beside training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What a document that cannot be used does: end the run with its place and reason, or be left out and listed."""

    max_skipped: AllowanceField = "1%"
    """How many documents may be left out, as a number or as a share of all; more are an error."""

    @field_validator("split")
    @classmethod
    def _is_a_whole(cls, value: object) -> object:
        if isinstance(value, tuple) and not _adds_up(value):
            raise ValueError("must hold two or three positive shares that add up to 1, such as [0.9, 0.1]")
        return value

    @field_validator("train")
    @classmethod
    def _is_drawn_from(cls, value: object) -> object:
        parts = [part for part in value if isinstance(part, WeighedText)] if isinstance(value, tuple) else []
        if parts and all(part.weight == 0 for part in parts):
            raise ValueError("must have a part whose weight is more than 0")
        return value

    @property
    def policy(self) -> Policy:
        """What the section says about bad documents."""
        return Policy(None, self.on_bad_sample, self.max_skipped)

    @property
    def rule(self) -> SplitRule | None:
        """How the training text is divided; None where it is not."""
        if self.val is not None or self.split is None:
            return None
        return SplitRule(self.split if isinstance(self.split, tuple) else None, self.split_by)
