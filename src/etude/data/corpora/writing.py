"""Generated corpora as files: made once into a folder, found again there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from etude.base.errors import ConfigError, StorageError
from etude.base.files import make_folder, read_json, sha256_of, storage, write_json, write_text
from etude.base.paths import user_path
from etude.base.says import Say, unheard
from etude.data.corpora import languages, loans, numbers

NAMES: Final = ("numbers",)
"""Corpora of pairs."""
LABELLED: Final = ("number_languages",)
"""Corpora of texts with a label."""
TABULAR: Final = ("loans",)
"""Corpora of rows of numbers and categories."""
LABEL: Final = "corpus.json"
"""What says which corpus a folder holds; written last, so that a folder without it is unfinished."""


class Corpus(NamedTuple):
    """A corpus that can be generated: rows of texts."""

    columns: tuple[str, ...]
    sizes: Mapping[str, int]
    """Rows by split."""
    need_libraries: Callable[[], None]
    rows: Callable[[str, int, int], Iterator[tuple[str, ...]]]
    """Of a split, a seed, and how many."""


def _numbers(split: str, seed: int, size: int) -> Iterator[tuple[str, str]]:
    return ((pair.source, pair.target) for pair in numbers.pairs(split, seed, size))


CORPORA: Final = {
    "numbers": Corpus(("source", "target"), numbers.SIZES, numbers.need_libraries, _numbers),
    "number_languages": Corpus(
        ("text", "label"), languages.SIZES, languages.need_libraries, languages.labelled_numbers
    ),
    "loans": Corpus(loans.COLUMNS, loans.SIZES, lambda: None, loans.loans),
}


def generate(
    name: str,
    folder: Path | str,
    *,
    seed: int = 1,
    sizes: Mapping[str, int] | None = None,
    notice: Say = unheard,
) -> dict[str, Path]:
    """Write the corpus `name` as `train.tsv`, `val.tsv` and `test.tsv` into `folder`, and give their paths by split.

    Each file has a header of two names, such as `source<TAB>target`. `sizes` changes how many rows a split has.
    Files that the same generator wrote for the same seed and sizes are used again. Raises ConfigError for an unknown
    name, split or size, and when the libraries of the extra `demo` are missing, and StorageError when `folder` cannot
    be written.
    """
    if name not in CORPORA:
        raise ConfigError(f"There is no generated corpus {name!r}; there is: {', '.join(CORPORA)}.")
    corpus = CORPORA[name]
    folder = user_path(folder)
    asked = _sizes(corpus.sizes, sizes)
    paths = {split: folder / f"{split}.tsv" for split in asked}
    corpus.need_libraries()
    label = {"corpus": name, "generator": generator_version(), "seed": seed, "sizes": asked}
    if holds(folder, label, paths):
        return paths
    notice(f"Generating the corpus {name} ({sum(asked.values()):,} rows) in {folder}.")
    make_folder(folder)
    with storage("replace", folder / LABEL), suppress(FileNotFoundError):
        (folder / LABEL).unlink()
    for split, path in paths.items():
        rows = [corpus.columns, *corpus.rows(split, seed, asked[split])]
        write_text(path, "".join("\t".join(row) + "\n" for row in rows))
    write_json(folder / LABEL, {**label, "sha256": {split: sha256_of(path) for split, path in paths.items()}})
    return paths


def generator_version() -> str:
    """A hash of all that decides what is generated: this package's code and the versions of its libraries."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(f"num2words {_version('num2words')}, babel {_version('babel')}".encode())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    """The version of a library; of one that is not there, which the corpora that need it have refused, nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _sizes(usual: Mapping[str, int], sizes: Mapping[str, int] | None) -> dict[str, int]:
    asked = {**usual, **(sizes or {})}
    for split, size in asked.items():
        if split not in usual or size < 1:
            raise ConfigError(f"A corpus has at least 1 pair in each of train, val and test, but {split!r} has {size}.")
    return asked


def holds(folder: Path, label: Mapping[str, Any], paths: Mapping[str, Path]) -> bool:
    """Whether `folder` holds what `label` says, whole and unchanged."""
    try:
        found = read_json(folder / LABEL)
        return bool(found == {**label, "sha256": {split: sha256_of(path) for split, path in paths.items()}})
    except (OSError, StorageError):
        return False
