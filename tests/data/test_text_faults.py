"""Whatever happens to a preparation of text, the next one finds all of its tables or none of them."""

import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from text_corpora import BYTES, content_of, written

from etude.base.errors import DataError, StorageError
from etude.data.files.text_source import open_texts
from etude.data.files.text_split import SplitRule
from etude.data.store import folders
from etude.data.store.text_prepared import prepare_texts


def damage_size(folder):
    with (folder / "all-00000.ids").open("ab") as file:
        file.write(b"\0")


def damage_manifest(folder):
    (folder / "manifest.json").write_text('{"format": 1}')


def remove_a_file(folder):
    (folder / "all.starts").unlink()


@pytest.mark.parametrize("damage", [damage_size, damage_manifest, remove_a_file])
def test_a_damaged_table_is_made_again_and_said(tmp_path, damage):
    corpus, heard = open_texts(written(tmp_path)), []
    tables = prepare_texts(corpus, BYTES, tmp_path / "cache")
    whole = content_of(tables.folder)
    damage(tables.folder)

    again = prepare_texts(corpus, BYTES, tmp_path / "cache", notice=heard.append)

    assert content_of(again.folder) == whole
    assert heard == [f"The prepared data in {tables.folder} is damaged or foreign: Etude prepares it again."]


PROGRAM = """
import sys
from pathlib import Path
from etude.data.store import text_prepared
from etude.data.files.text_source import open_texts
from etude.data.files.text_split import SplitRule
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.training import train_tokenizer
text_prepared.LOT_PIECES = 50
def report(done, total):
    print(done, flush=True)
    sys.stdin.readline()
cache = Path(sys.argv[2])
corpus = open_texts(Path(sys.argv[1]), cache=cache)
text_prepared.prepare_texts(corpus, train_tokenizer(ByteConfig(), []), cache, SplitRule((0.8, 0.2)), report=report,
                            processes=int(sys.argv[3]))
print("made", flush=True)
"""


def preparing(path, cache, processes=1):
    command = [sys.executable, "-c", PROGRAM, str(path), str(cache), str(processes)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("reports", "processes"), [(1, 1), (4, 2), (7, 1)])
def test_a_preparation_that_is_killed_starts_over_to_the_same_bytes(tmp_path, reports, processes):
    path, cache = written(tmp_path), tmp_path / "cache"
    whole = prepare_texts(open_texts(path), BYTES, tmp_path / "unbroken", SplitRule((0.8, 0.2)))
    with preparing(path, cache, processes) as process:
        for number in range(reports):
            process.stdout.readline()
            process.stdin.write("\n" if number < reports - 1 else "")
            process.stdin.flush()
        process.send_signal(signal.SIGKILL)
    left = sorted(place.suffix for place in (cache / "texts").iterdir())

    again = prepare_texts(open_texts(path, cache=cache), BYTES, cache, SplitRule((0.8, 0.2)))

    assert left == [".lock", ".part"]
    assert content_of(again.folder) == content_of(whole.folder)
    assert sorted(place.suffix for place in (cache / "texts").iterdir()) == ["", ".lock"]


class StoppedError(BaseException):
    """What ends a preparation at once, as a kill does: nothing is told and nothing mended."""


@pytest.mark.parametrize("name", ["fsync_file", "fsync_folder", "write_json", "rename", "mkdir"])
@pytest.mark.parametrize("error", [OSError(28, "full"), StoppedError()], ids=["full disk", "stopped"])
def test_wherever_the_disk_fails_nothing_half_done_is_taken_for_whole(tmp_path, monkeypatch, name, error):
    corpus = open_texts(written(tmp_path, 30))
    whole = content_of(prepare_texts(corpus, BYTES, tmp_path / "whole").folder)
    targets = {"rename": Path, "mkdir": Path, "fsync_folder": folders.whole_folder.__wrapped__.__globals__}
    target = targets.get(name, folders)

    def fail(*_args, **_kwargs):
        raise error

    with monkeypatch.context() as broken:
        (tmp_path / "cache" / "texts").mkdir(parents=True)
        broken.setitem(target, name, fail) if isinstance(target, dict) else broken.setattr(target, name, fail)
        with pytest.raises((StorageError, StoppedError)):
            prepare_texts(corpus, BYTES, tmp_path / "cache")
    left = [place.suffix for place in (tmp_path / "cache" / "texts").iterdir()]

    assert left in ([".lock"], [])
    assert content_of(prepare_texts(corpus, BYTES, tmp_path / "cache").folder) == whole


def test_of_two_preparations_at_once_one_waits_for_the_other(tmp_path):
    path, cache, rule = written(tmp_path), tmp_path / "cache", SplitRule((0.8, 0.2))
    with preparing(path, cache) as process:
        process.stdout.readline()
        heard, made = [], []
        waiting = threading.Thread(
            target=lambda: made.append(prepare_texts(open_texts(path), BYTES, cache, rule, notice=heard.append))
        )
        waiting.start()
        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        process.communicate("\n" * 20)
        waiting.join(5)

    assert heard == ["Another process is preparing the same data: waiting for it."]
    assert len(made[0].parts["train"]) == 240


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path):
    corpus, limits = open_texts(written(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(StorageError, match="Cannot write the prepared data"):
            prepare_texts(corpus, BYTES, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert [path.suffix for path in (tmp_path / "cache" / "texts").iterdir()] == [".lock"]


def test_a_process_of_the_crew_that_dies_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(DataError, match="A process that tokenised the data ended with code 1"):
        prepare_texts(open_texts(written(tmp_path)), BYTES, tmp_path / "cache", processes=2)


def test_no_process_of_a_crew_outlives_the_one_that_started_it(tmp_path):
    with preparing(written(tmp_path), tmp_path / "cache", 2) as process:
        process.stdout.readline()
        children = [
            int(pid)
            for task in Path(f"/proc/{process.pid}/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
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


MEMORY = """
import sys
from pathlib import Path
from etude.data.files import text_files
from etude.data.store import text_prepared
from etude.data.store.text_prepared import prepare_texts
from etude.data.files.text_source import open_texts
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.training import train_tokenizer
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
text_files.BLOCK_BYTES = text_prepared.LOT_BYTES = 1 << 16
most = []
prepare_texts(open_texts(Path(sys.argv[1])), train_tokenizer(ByteConfig(), []), Path(sys.argv[2]), processes=1,
              report=lambda *_: most.append(anonymous()))
print(max(most))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no process its anonymous memory")
def test_memory_does_not_grow_with_a_document(tmp_path):
    used = []
    for lines in (200_000, 1_000_000):
        path = tmp_path / f"{lines}.txt"
        path.write_text("a line of text\n" * lines)
        command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "cache")]
        used.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    assert used[1] < 1.15 * used[0]
