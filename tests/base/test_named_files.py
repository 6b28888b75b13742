"""What a user names is written to, whatever it is; nothing but a regular file is replaced."""

import os
import pty
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from etude.app.cli.main import main
from etude.base.errors import StorageError
from etude.base.named_files import check_named, named_file, write_named

WRITES = """
import sys
from pathlib import Path
from etude.base.named_files import write_named
write_named(Path(sys.argv[1]), "new\\n")
"""


def test_a_regular_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    before = path.stat().st_ino

    with pytest.raises(ZeroDivisionError), named_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_text() == "old"

    write_named(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_of_a_link_the_target_is_written_and_the_link_stays(tmp_path, exists):
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    (tmp_path / "middle").symlink_to(Path("elsewhere") / "target")
    link.symlink_to("middle")

    write_named(link, "new")

    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()


@pytest.mark.parametrize("by_link", [False, True])
def test_a_fifo_is_written_to_and_stays(tmp_path, by_link):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to("fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()

    write_named(tmp_path / "link" if by_link else fifo, "new")
    reader.join()

    assert read == ["new"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_written_to_and_stays(tmp_path):
    ours, theirs = pty.openpty()
    terminal = Path(os.ttyname(theirs))
    (tmp_path / "link").symlink_to(terminal)

    for path in (terminal, tmp_path / "link"):
        write_named(path, "new")
        assert os.read(ours, 100) == b"new"
        assert stat.S_ISCHR(terminal.stat().st_mode)
    os.close(ours)
    os.close(theirs)
    with pytest.raises(StorageError, match=r"Cannot write /dev/full: No space left on device"):
        write_named(Path("/dev/full"), "new")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_descriptor_is_written_to_where_it_stands(tmp_path, name):
    path = tmp_path / "log"
    path.write_text("before\n")
    with path.open("a") as log:
        subprocess.run([sys.executable, "-c", WRITES, name], stdout=log, check=True)
    assert path.read_text() == "before\nnew\n"

    piped = subprocess.run([sys.executable, "-c", WRITES, name], stdout=subprocess.PIPE, check=True, text=True)
    assert piped.stdout == "new\n"


def test_what_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "none" / "x")

    for name in ("folder", "none/x", "dangling"):
        with pytest.raises(StorageError, match=r"--output .* cannot be written: "):
            check_named(tmp_path / name, "output")
    for name in ("new", "/dev/full", "/dev/stdout"):
        check_named(tmp_path / name, "output")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "folder"]


def test_the_shell_replaces_nothing_but_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").write_text("old")
    (tmp_path / "link.toml").symlink_to("real")
    (tmp_path / "slang.toml").write_text("[train]\nmax_epochs = 3\n")

    assert main(["convert", "--from", "slangmod", "slang.toml", "--output", "link.toml"]) == 0

    assert (tmp_path / "link.toml").is_symlink()
    assert "max_duration" in (tmp_path / "real").read_text()
    capsys.readouterr()
