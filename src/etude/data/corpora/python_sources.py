"""Text that is there wherever Python is: its documentation and the sources of its standard library.

`python` holds the help topics and every source file but tests and tables of characters, 79 topics and some 600 files
in Python 3.11; `python_docs` the topics and the docstrings of each file. What they are depends on the version of
Python, and on nothing else.
"""

import ast
import importlib
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from etude.base.errors import ConfigError, DataError, StorageError
from etude.base.files import make_folder, read_json, sha256_of, write_json, write_text
from etude.base.says import Say, unheard

NAMES: Final = ("python", "python_docs")
LABEL: Final = "corpus.json"
"""What says which corpus a folder holds; written last, so that a folder without it is unfinished."""

LEFT_OUT: Final = frozenset(
    (
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "pydoc_data",
        "encodings",
        "__pycache__",
        "__phello__",
    )
)
"""Folders whose files are no part of it: what is installed beside Python, tests, and tables."""

LONG: Final = 200
"""A docstring shorter than this, with all others of its file, is no document."""


def text_corpus(name: str, folder: Path, *, notice: Say = unheard) -> Path:
    """Write the corpus `name` into `folder`, a JSON line a document, and give the file; use it again where it is there.

    Raises ConfigError for an unknown name, DataError where this Python has no sources.
    """
    if name not in NAMES:
        raise ConfigError(f"There is no text corpus {name!r}; there are: {', '.join(NAMES)}.")
    path = folder / f"{name}.jsonl"
    label = {"corpus": name, "python": sys.version, "generator": sha256(Path(__file__).read_bytes()).hexdigest()}
    if _holds(folder, label, path):
        return path
    notice(f"Collecting the corpus {name} from Python's own library in {folder}.")
    found = list(documents(name))
    if not any(title.endswith(".py") for title, _ in found):
        raise DataError("This Python has no sources of its standard library; name your own files in data.train.")
    lines = [json.dumps({"text": text, "name": title}, ensure_ascii=False) for title, text in found]
    make_folder(folder)
    write_text(path, "\n".join(lines) + "\n")
    write_json(folder / LABEL, {**label, "sha256": sha256_of(path)})
    return path


def documents(name: str) -> Iterator[tuple[str, str]]:
    """Give name and text of each document of a corpus, in a fixed order."""
    topics: dict[str, str] = dict(importlib.import_module("pydoc_data.topics").topics)
    for topic in sorted(topics):
        yield topic, topics[topic]
    library = Path(sysconfig.get_path("stdlib"))
    for path in source_files(library):
        text = path.read_bytes().decode("utf-8", errors="replace")
        if name == "python_docs":
            text = docstrings(text)
        if text and not text.isspace() and (name == "python" or len(text) >= LONG):
            yield path.relative_to(library).as_posix(), text


def source_files(library: Path) -> list[Path]:
    """Name the source files below a folder that belong to the corpus, sorted."""
    found = (path for path in library.rglob("*.py") if LEFT_OUT.isdisjoint(path.relative_to(library).parts[:-1]))
    return sorted(found, key=lambda path: path.relative_to(library).parts)


def docstrings(source: str) -> str:
    """Give all docstrings of a module, each under the name of what it describes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""  # lib2to3 keeps files of another Python
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    described = [(node, ast.get_docstring(node)) for node in ast.walk(tree) if isinstance(node, kinds)]
    parts = [text if isinstance(node, ast.Module) else f"{node.name}\n\n{text}" for node, text in described if text]
    return "\n\n".join(parts) + "\n" if parts else ""


def _holds(folder: Path, label: dict[str, str], path: Path) -> bool:
    """Whether `folder` holds what `label` says, whole and unchanged."""
    try:
        found = read_json(folder / LABEL)
        return bool(found == {**label, "sha256": sha256_of(path)})
    except (OSError, StorageError):
        return False
