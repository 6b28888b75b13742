"""What a config may name as one part of the data: files, aligned files, or a generated corpus; and its columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from etude.base.config.fields import PathField, PathOr
from etude.base.config.section import Section
from etude.base.errors import DataError


def corpus_names() -> list[str]:
    """Name the generated corpora."""
    from etude.data.corpora import NAMES

    return sorted(NAMES)


def labelled_corpus_names() -> list[str]:
    """Name the generated corpora of texts with a label."""
    from etude.data.corpora import LABELLED

    return sorted(LABELLED)


def audio_corpus_names() -> list[str]:
    """Name the generated corpora of recordings with a transcript."""
    from etude.data.corpora import TRANSCRIBED as SPOKEN

    return sorted(SPOKEN)


def labelled_audio_corpus_names() -> list[str]:
    """Name the generated corpora of recordings with a label."""
    from etude.data.corpora import CLASSED

    return sorted(CLASSED)


def tabular_corpus_names() -> list[str]:
    """Name the generated corpora of tables."""
    from etude.data.corpora import TABULAR

    return sorted(TABULAR)


class Roles(NamedTuple):
    """What the two texts of a sample are, and what messages call a sample."""

    names: tuple[str, str]
    """Of the keys of `[data]` that name their columns, and of these columns unless a key says otherwise."""
    sample: str
    corpora: Callable[[], list[str]]
    """Names the generated corpora of such samples."""
    also: str = ""
    """What may be given beside files, as messages say it."""
    numbers: bool = False
    """Whether JSON may have a number, true or false in place of the second text."""
    lists: bool = False
    """Whether JSON may have a list of texts in place of the second text."""
    optional: bool = False
    """Whether the second text may be empty."""


PAIRED = Roles(
    ("source", "target"),
    "pair",
    corpus_names,
    also='; two aligned files are given as { source = "train.en", target = "train.de" }',
)
LABELLED = Roles(("text", "label"), "sample", labelled_corpus_names, numbers=True)
TRANSCRIBED = Roles(("path", "transcript"), "recording", audio_corpus_names, optional=True)
SOUNDING = Roles(("path", "label"), "recording", labelled_audio_corpus_names, numbers=True)


class AlignedFiles(Section):
    """Two files whose lines belong together, or two lists of such files."""

    source: PathField | tuple[PathField, ...]
    """The file, or files, of source lines."""

    target: PathField | tuple[PathField, ...]
    """The file, or files, of target lines, in the same order."""

    def pairs(self, key: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Give the files of both sides. Raises DataError where there are not as many of each."""
        source, target = listed(self.source), listed(self.target)
        if len(source) != len(target) or not source:
            raise DataError(
                f"{key} must name as many source files as target files, but has {len(source)} and {len(target)}."
            )
        return source, target


Files = Path | tuple[Path, ...] | list[Path] | AlignedFiles
"""A file, files one after the other, or aligned files."""


def listed(files: Path | tuple[Path, ...] | list[Path]) -> tuple[Path, ...]:
    """Give one file, or several, as several."""
    return (files,) if isinstance(files, Path) else tuple(files)


Split = Files | str
"""What holds one part of the data: files, or a generated corpus by name."""

SplitField = (
    Annotated[Path | str, PathOr(corpus_names)] | Annotated[tuple[PathField, ...], Field(min_length=1)] | AlignedFiles
)

ColumnName = str | int
"""A column by its name, or by its number from 1 on."""

ColumnField = Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=1)]
