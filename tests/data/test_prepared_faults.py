"""Whatever happens to a preparation, the next one finds all of a table or none of it."""

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from etude.base.errors import DataError, RefusedError, StorageError
from etude.data.files.parallel import SIDES, BadSampleError, ListedPairs, open_pairs
from etude.data.files.skipped import Policy
from etude.data.store import pair_encoding
from etude.data.store.pairs import prepare_pairs
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.training import train_tokenizer

BYTES = dict.fromkeys(SIDES, train_tokenizer(ByteConfig(), []))
LEAVE_OUT = Policy(on_bad_sample="skip", max_skipped="100%")


def written(folder, count=300, name="pairs.tsv"):
    path = folder / name
    path.write_text("source\ttarget\n" + "".join(f"number {n}\tZahl é {n * n}\n" for n in range(count)))
    return path


def texts_of(table, side, rows):
    ids, lengths = table.gather(side, np.asarray(rows, dtype=np.int64))
    return [BYTES[side].decode(part) for part in np.split(ids, np.cumsum(lengths)[:-1])]


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_any_number_of_processes_gives_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(pair_encoding, "CHUNK_SAMPLES", 64)
    path = written(tmp_path, count=1000)
    path.write_text(path.read_text() + "ragged\nlast\trow\n")
    seen = []

    one = prepare_pairs(open_pairs(path), BYTES, tmp_path / "one", LEAVE_OUT, processes=1)
    two = prepare_pairs(
        open_pairs(path), BYTES, tmp_path / "two", LEAVE_OUT, processes=2, report=lambda *done: seen.append(done)
    )

    assert content_of(one.folder) == content_of(two.folder)
    assert seen[-1] == (1002, 1002)
    assert seen == sorted(seen)


def test_a_bad_sample_found_by_a_process_is_reported_like_any_other(tmp_path):
    path = written(tmp_path, count=5000)
    path.write_text(path.read_text() + "ragged\n")

    with pytest.raises(BadSampleError, match=r"line 5002: the line has 1 column"):
        prepare_pairs(open_pairs(path), BYTES, tmp_path / "cache", processes=2)


def test_a_process_that_dies_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(DataError, match="A process that prepared the data ended with code 1"):
        prepare_pairs(open_pairs(written(tmp_path)), BYTES, tmp_path / "cache", processes=2)


def damage_size(folder):
    with (folder / "source.values").open("ab") as file:
        file.write(b"\0")


def damage_manifest(folder):
    (folder / "manifest.json").write_text('{"format": 1}')


def remove_a_file(folder):
    (folder / "target.starts").unlink()


def put_another_s_there(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"key": "0" * 64}))


@pytest.mark.parametrize("damage", [damage_size, damage_manifest, remove_a_file, put_another_s_there])
def test_a_damaged_or_foreign_table_is_made_again_and_said(tmp_path, damage):
    source, heard = open_pairs(written(tmp_path)), []
    table = prepare_pairs(source, BYTES, tmp_path / "cache")
    whole = content_of(table.folder)
    damage(table.folder)

    again = prepare_pairs(source, BYTES, tmp_path / "cache", notice=heard.append)

    assert content_of(again.folder) == whole
    assert heard == [f"The prepared data in {table.folder} is damaged or foreign: Etude prepares it again."]


PROGRAM = """
import sys
from pathlib import Path
from etude.data.store import pair_encoding
from etude.data.files.parallel import open_pairs
from etude.data.store.pairs import prepare_pairs
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.training import train_tokenizer
pair_encoding.CHUNK_SAMPLES = 100
def report(done, total):
    print(done, flush=True)
    sys.stdin.readline()
bytes_ = train_tokenizer(ByteConfig(), [])
source = open_pairs(Path(sys.argv[1]), cache=Path(sys.argv[2]))
table = prepare_pairs(source, {"source": bytes_, "target": bytes_}, Path(sys.argv[2]), report=report, notice=print)
print("made", len(table), flush=True)
"""


def preparing(path, cache):
    command = [sys.executable, "-c", PROGRAM, str(path), str(cache)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("reports", [1, 3, 5])
def test_a_preparation_that_is_killed_starts_over_cleanly(tmp_path, reports):
    path, cache = written(tmp_path, count=500), tmp_path / "cache"
    with preparing(path, cache) as process:
        for _ in range(reports):
            process.stdout.readline()
            process.stdin.write("\n" if _ < reports - 1 else "")
            process.stdin.flush()
        process.send_signal(signal.SIGKILL)
    left = sorted(place.suffix for place in (cache / "tables").iterdir())

    table = prepare_pairs(open_pairs(path, cache=cache), BYTES, cache)

    assert left == [".lock", ".part"]
    assert len(table) == 500
    assert texts_of(table, "source", [499]) == ["number 499"]
    assert sorted(place.suffix for place in (cache / "tables").iterdir()) == ["", ".lock"]


def test_of_two_preparations_at_once_one_waits_for_the_other(tmp_path):
    path, cache = written(tmp_path, count=500), tmp_path / "cache"
    with preparing(path, cache) as process:
        process.stdout.readline()
        heard, tables = [], []
        waiting = threading.Thread(
            target=lambda: tables.append(prepare_pairs(open_pairs(path), BYTES, cache, notice=heard.append))
        )
        waiting.start()
        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        process.communicate("\n" * 10)
        waiting.join(5)

    assert heard == ["Another process is preparing the same data: waiting for it."]
    assert len(tables[0]) == 500


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(StorageError, match="cache"):
        prepare_pairs(open_pairs(written(tmp_path)), BYTES, tmp_path / "cache")


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path):
    source, limits = open_pairs(written(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError, match="Cannot write the prepared data"):
            prepare_pairs(source, BYTES, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert [path.suffix for path in (tmp_path / "cache" / "tables").iterdir()] == [".lock"]
    assert len(prepare_pairs(source, BYTES, tmp_path / "cache")) == 300


def test_a_tokenizer_for_each_side_is_needed(tmp_path):
    with pytest.raises(RefusedError, match="a tokenizer for each"):
        prepare_pairs(ListedPairs([("a", "b")], "made"), {"source": BYTES["source"]}, tmp_path)


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from etude.data.files.parallel import open_pairs
from etude.data.store.pairs import prepare_pairs
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.training import train_tokenizer
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
bytes_ = train_tokenizer(ByteConfig(), [])
most = []
source = open_pairs(Path(sys.argv[1]), cache=Path(sys.argv[2]))
table = prepare_pairs(source, {"source": bytes_, "target": bytes_}, Path(sys.argv[2]), processes=1,
                      report=lambda *_: most.append(anonymous()))
table.gather("source", np.arange(0, len(table), 1000))
print(max(most))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no process its anonymous memory")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    used = []
    for count in (10_000, 60_000):
        path = tmp_path / f"{count}.tsv"
        path.write_text("".join(f"{n}\t{n}\n" for n in range(count)))
        command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "cache")]
        used.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    assert used[1] < 1.1 * used[0]


def test_no_process_of_a_crew_outlives_the_one_that_started_it(tmp_path):
    path = written(tmp_path, count=5000)
    program = PROGRAM.replace("report=report", "processes=2, report=report")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(tmp_path / "cache")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        process.kill()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert len(children) == 2
    assert not any(alive(pid) for pid in children)


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
