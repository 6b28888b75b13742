"""Only regular files are opened, and nothing that is opened waits."""

import os
import socket

import pytest

from etude.base.errors import StorageError
from etude.base.files import read_json, sha256_of, storage
from etude.base.regular import NotRegular, open_regular, read_regular


@pytest.fixture
def places(tmp_path):
    """One of each kind, by what it is called."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "to fifo").symlink_to("fifo")
    (tmp_path / "to zero").symlink_to("/dev/zero")
    (tmp_path / "to file").symlink_to("file")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket"))
    bound.close()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fifo", "a FIFO"),
        ("folder", "a folder"),
        ("to fifo", "a FIFO"),
        ("to zero", "a device"),
        ("socket", "a socket"),
    ],
)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT])
def test_what_is_no_regular_file_is_named_and_never_waited_for(places, name, kind, flags):
    with pytest.raises(NotRegular, match=f"it must be a regular file, but is {kind}"):
        open_regular(places / name, flags)


def test_a_link_is_followed_only_where_that_is_asked_for(places):
    assert read_regular(places / "to file", 100) == b"content"
    with pytest.raises(NotRegular, match="is a link"):
        read_regular(places / "to file", 100, links=False)


def test_what_is_too_large_is_not_read(places):
    assert read_regular(places / "file", 7) == b"content"
    with pytest.raises(StorageError, match="it has more than 6 bytes"), storage("read", places / "file"):
        read_regular(places / "file", 6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1]", "must hold an object, but holds a list"),
        (b"{", "is damaged"),
        (b'{"a": ' + b"[" * 90_000, "is damaged"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100 levels deep"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is damaged"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_a_json_file_of_any_content_is_an_object_or_a_sentence(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_bytes(content)

    with pytest.raises(StorageError, match=said):
        read_json(path)


def test_json_and_hashes_are_read_of_regular_files_alone(places):
    with pytest.raises(StorageError, match="is a FIFO"):
        read_json(places / "fifo")
    with pytest.raises(OSError, match="is a device"):
        sha256_of(places / "to zero")
