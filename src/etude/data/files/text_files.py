"""Files of text: which of a folder are read, what kind each is, and their bytes, compressed or not."""

import hashlib
import os
import stat
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from etude.base.errors import DataError
from etude.base.files import make_folder, sha256_of
from etude.base.hashes import sealed_or_empty, write_sealed
from etude.base.paths import user_path
from etude.base.says import Say
from etude.data.corpora.python_sources import NAMES
from etude.data.files.lines import SETTLED_SECONDS, shown

PLAIN = frozenset(
    [
        ".adoc",
        ".bash",
        ".bat",
        ".bib",
        ".c",
        ".cc",
        ".cfg",
        ".clj",
        ".cmake",
        ".conf",
        ".cpp",
        ".cs",
        ".css",
        ".csv",
        ".cu",
        ".cxx",
        ".d",
        ".dart",
        ".el",
        ".erl",
        ".ex",
        ".exs",
        ".f90",
        ".fs",
        ".go",
        ".gradle",
        ".h",
        ".hpp",
        ".hs",
        ".htm",
        ".html",
        ".ini",
        ".ipynb",
        ".java",
        ".jl",
        ".js",
        ".json",
        ".jsx",
        ".kt",
        ".less",
        ".lisp",
        ".log",
        ".lua",
        ".m",
        ".make",
        ".markdown",
        ".md",
        ".mjs",
        ".ml",
        ".mli",
        ".nim",
        ".org",
        ".pas",
        ".php",
        ".pl",
        ".pm",
        ".proto",
        ".ps1",
        ".py",
        ".pyi",
        ".pyx",
        ".r",
        ".rb",
        ".rs",
        ".rst",
        ".sass",
        ".scala",
        ".scm",
        ".scss",
        ".sh",
        ".sql",
        ".srt",
        ".swift",
        ".tcl",
        ".tex",
        ".text",
        ".tf",
        ".toml",
        ".ts",
        ".tsv",
        ".tsx",
        ".txt",
        ".vb",
        ".vim",
        ".vue",
        ".xml",
        ".yaml",
        ".yml",
        ".zig",
    ]
)
"""Names that plain text ends in; a folder's files of other kinds are left out."""

JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
COMPRESSED = (".gz", ".zst")

BLOCK_BYTES = 1 << 20
COMPRESSED_BYTES = 1 << 16
"""How much is decompressed at once: text is rarely a hundredth of its size when compressed."""

NAMED = 3
"""How many kinds of files that are left out a message names."""

Seen = Callable[[int], None]


class DamagedError(Exception):
    """A file that cannot be read to its end; the message is a clause that says why."""


class TextFile(NamedTuple):
    """A file of text: `kind` is `plain`, `jsonl` or `parquet`, `compression` is "", ".gz" or ".zst"."""

    path: Path
    kind: str
    compression: str


def text_files(paths: Sequence[Path], key: str, notice: Say) -> tuple[TextFile, ...]:
    """Find the files of text that `paths` name, in their order; a folder's by their path below it.

    Files and folders whose name begins with a dot are left out of a folder; what is no text is, too, and `notice`
    hears of it. `key` is what the config calls the paths. Raises DataError where a path is missing or holds no text.
    """
    found: list[TextFile] = []
    for path in map(user_path, paths):
        if not os.path.lexists(path):
            known = "" if path.suffix else f"; corpora by name are {', '.join(NAMES)}"
            raise DataError(f"{key} names {shown(path)}, which does not exist{known}.")
        found.extend(_of_folder(path, key, notice) if path.is_dir() else [_of_file(path)])
    return tuple(found)


def _of_file(path: Path) -> TextFile:
    name, compression = _unpacked(path.name)
    suffix = Path(name).suffix.lower()
    if suffix == PARQUET and compression:
        raise DataError(f"{shown(path)} must be a plain .parquet file: Parquet is compressed in itself.")
    return TextFile(path, _kind(suffix), compression)


def _of_folder(folder: Path, key: str, notice: Say) -> list[TextFile]:
    inside = sorted(_inside(folder), key=lambda path: path.relative_to(folder).parts)
    taken = [path for path in inside if _known(Path(_unpacked(path.name)[0]).suffix.lower())]
    if not taken:
        raise DataError(f"{key} names the folder {shown(folder)}, which holds no file of text.")
    if len(taken) < len(inside):
        held = set(taken)
        _say_left_out(folder, [path for path in inside if path not in held], notice)
    return [_of_file(path) for path in taken]


def _inside(folder: Path) -> Iterator[Path]:
    """Give all files of a folder, hidden ones left out."""
    seen = {os.path.realpath(folder)}
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and _first_time(root, name, seen)]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _say_left_out(folder: Path, others: Sequence[Path], notice: Say) -> None:
    counts = Counter(path.suffix or path.name for path in others)
    kinds = [shown(kind, 30) for kind, _ in counts.most_common(NAMED)]
    more = ", ..." if len(counts) > NAMED else ""
    notice(f"{len(others)} files in {folder} are not text and are left out ({', '.join(kinds)}{more}).")


def _first_time(root: str, name: str, seen: set[str]) -> bool:
    """Tell whether a folder has not been read yet; by links it may be reached again, and even from inside itself."""
    place = os.path.realpath(Path(root, name))
    if place in seen:
        return False
    seen.add(place)
    return True


def _unpacked(name: str) -> tuple[str, str]:
    """Give a file's name without, and with only, what says how it is compressed."""
    suffix = Path(name).suffix.lower()
    return (name[: -len(suffix)], suffix) if suffix in COMPRESSED else (name, "")


def _known(suffix: str) -> bool:
    return suffix in PLAIN or suffix in JSON_LINES or suffix == PARQUET


def _kind(suffix: str) -> str:
    if suffix in JSON_LINES:
        return "jsonl"
    return "parquet" if suffix == PARQUET else "plain"


def blocks(file: TextFile, seen: Seen = lambda _: None) -> Iterator[bytes]:
    """Give a file's bytes, decompressed, in blocks of about 1 MiB. Raises DamagedError where it cannot be read on.

    `seen` hears how much of the file, as it is stored, has been read.
    """
    try:
        with file.path.open("rb") as raw:
            if file.compression:
                yield from _decompressed(raw, _opener(file), seen)
            else:
                while block := raw.read(BLOCK_BYTES):
                    seen(raw.tell())
                    yield block
    except OSError as error:
        raise DamagedError(f"the file cannot be read ({error.strerror or error})") from error


class Machine(Protocol):
    """What decompresses one stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes, /) -> bytes:
        """Give what can be given so far."""


def _decompressed(raw: IO[bytes], new: Callable[[], Machine], seen: Seen) -> Iterator[bytes]:
    """Decompress what may be several streams one after the other."""
    machine: Machine | None = None
    while chunk := raw.read(COMPRESSED_BYTES):
        seen(raw.tell())
        while chunk and (machine or (chunk := chunk.lstrip(b"\0"))):  # what tapes are filled up with
            machine = machine or new()
            yield from _some(machine, chunk)
            chunk, machine = (machine.unused_data, None) if machine.eof else (b"", machine)
    if machine is not None:
        raise DamagedError("the compressed file is cut short")


def _some(machine: Machine, chunk: bytes) -> Iterator[bytes]:
    try:
        text = machine.decompress(chunk)
    except Exception as error:  # zstandard's own, and zlib's
        raise DamagedError(f"the compressed file is damaged ({error})") from error
    if text:
        yield text


def _opener(file: TextFile) -> Callable[[], Machine]:
    if file.compression == ".gz":
        return lambda: zlib.decompressobj(wbits=31)
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{shown(file.path)} needs zstandard: pip install 'etude[text]'.") from error

    def opened() -> Machine:
        machine: Machine = zstandard.ZstdDecompressor().decompressobj()
        return machine

    return opened


Identity = tuple[int, int, int, int, int]
Known = dict[str, tuple[list[int], str]]
"""Digits of a sha256."""


def identity(path: Path) -> Identity:
    """Give what changes when a file does: size, two times, and which file it is."""
    try:
        now = path.stat()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(now.st_mode):
        raise DataError(f"{shown(path)} must be a file, but is a stream, and cannot be read twice.")
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev


def contents(files: Sequence[TextFile], cache: Path | None) -> list[tuple[Identity, str]]:
    """Give each file's identity and the sha256 of its bytes.

    The hash of a file that has not changed since it was last asked for comes from `cache`. A file that was changed
    so lately that another change might bear the same time is read again the next time.
    """
    if cache is None:
        return [_content(file, {}) for file in files]
    entry = cache / "text-files" / f"{_names(files)}.json"
    known = _remembered(entry)
    settled: Known = {}
    found = []
    for file in files:
        begun = time.time()
        now, sha256 = _content(file, known)
        found.append((now, sha256))
        if _is_known(file, now, known) or begun - max(now[1], now[2]) / 1e9 > SETTLED_SECONDS:
            settled[str(file.path)] = (list(now), sha256)
    if settled != known:
        make_folder(entry.parent)
        write_sealed(entry, {"files": settled})
    return found


def _content(file: TextFile, known: Known) -> tuple[Identity, str]:
    now = identity(file.path)
    return now, known[str(file.path)][1] if _is_known(file, now, known) else _hashed(file.path, now)


def _is_known(file: TextFile, now: Identity, known: Known) -> bool:
    before = known.get(str(file.path))
    return before is not None and before[0] == list(now)


def _hashed(path: Path, before: Identity) -> str:
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    if identity(path) != before:
        raise DataError(f"{shown(path)} has changed while it was read.")
    return sha256


def _names(files: Sequence[TextFile]) -> str:
    joined = b"\0".join(os.fsencode(file.path.absolute()) for file in files)
    return hashlib.sha256(joined).hexdigest()[:32]


def _remembered(entry: Path) -> Known:
    """What the cache knows of the files; nothing where there is none, or not ours: then they are read again."""
    return {path: (list(now), str(sha256)) for path, (now, sha256) in sealed_or_empty(entry).get("files", {}).items()}
