"""Whatever happens to prepared data, what is read of it has the bits that were prepared, or a sentence names it."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from etude.base import hashes
from etude.base.errors import EtudeError, StorageError
from etude.base.files import read_json
from etude.base.hashes import (
    Facts,
    check_hashes,
    first_damaged,
    read_sealed,
    sealed_or_empty,
    write_hashes,
    write_sealed,
)
from etude.data.files import lines, text_files
from etude.data.files.parallel import SIDES, open_pairs
from etude.data.files.text_source import open_texts
from etude.data.store.difficulty import difficulties
from etude.data.store.fitting import fit_tokenizers
from etude.data.store.pairs import prepare_pairs
from etude.data.store.table import Table
from etude.data.store.text_fitting import fit_text_tokenizer
from etude.data.store.text_prepared import prepare_texts
from etude.data.tokens.config import WordConfig

ROWS = "".join(f'{a} {b}\t"{b}\n{a}"\t{i}\n' for i, (a, b) in enumerate([("one", "two"), ("three", "four")] * 9))
WORDS = WordConfig(vocab_size=50)


def prepared(place):
    """All that the cache of `place` gives, as plain values, and what was said."""
    cache, heard = place / "cache", []
    source = open_pairs(place / "pairs.tsv", cache=cache, notice=heard.append)
    tokenizers = fit_tokenizers(WORDS, source, cache, notice=heard.append)
    table = prepare_pairs(source, tokenizers, cache, notice=heard.append)
    corpus = open_texts(place / "text.txt", cache=cache, notice=heard.append)
    tokenizer = fit_text_tokenizer(WORDS, corpus, cache, notice=heard.append)
    texts = prepare_texts(corpus, tokenizer, cache, notice=heard.append).parts["all"]
    everything = np.arange(len(table))
    found = [
        *(part.tolist() for side in SIDES for part in table.gather(side, everything)),
        [table.fingerprint, texts.fingerprint, source.fingerprint(), tokenizer.text, tokenizers["source"].text],
        difficulties(source, "level", table, cache, notice=heard.append).tolist(),
        texts.read(0, 3 * texts.targets).tolist(),
        [list(source[i]) for i in range(len(source))],
    ]
    return found, heard


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with data and their cache, and what that gives."""
    place = tmp_path_factory.mktemp("whole")
    (place / "pairs.tsv").write_text(f"source\ttarget\tlevel\n{ROWS}")
    (place / "text.txt").write_text("once upon a time\nthere was a house\n" * 20)
    long_ago = time.time() - 100
    for path in place.iterdir():
        os.utime(path, (long_ago, long_ago))
    found, _ = prepared(place)
    return place, found


def flip(path, chance):
    content = bytearray(path.read_bytes())
    if content:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def cut(path, chance):
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content) + 1)])


def swap(path, chance):
    """Exchange two runs of four bytes."""
    content = bytearray(path.read_bytes())
    if len(content) >= 8:
        one, other = sorted(chance.sample(range(0, len(content) - 3, 4), 2))
        content[one : one + 4], content[other : other + 4] = content[other : other + 4], content[one : one + 4]
    path.write_bytes(bytes(content))


def remove(path, _):
    path.unlink()


@pytest.mark.parametrize("damage", [flip, cut, swap, remove])
def test_every_damage_to_a_cache_is_mended(damage, whole, tmp_path, monkeypatch):
    for module in (lines, text_files, hashes):
        monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)  # what is found is remembered at once
    shutil.copytree(whole[0], tmp_path / "a")
    chance = random.Random(damage.__name__)
    assert prepared(tmp_path / "a")[0] == whole[1]
    for number in range(60):
        files = sorted(path for path in (tmp_path / "a" / "cache").rglob("*") if path.is_file())
        path = files[number % len(files)]
        damage(path, chance)
        if path.exists():
            os.utime(path, (number, number))  # a change within a tick of the clock would not show

        found, heard = prepared(tmp_path / "a")

        assert found == whole[1], (path, heard)


def test_a_damaged_table_is_named_and_prepared_again_and_found_whole_from_then_on(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "a")
    (values,) = (tmp_path / "a" / "cache" / "tables").glob("*/source.values")
    content = values.read_bytes()
    values.write_bytes(content[2:4] + content[:2] + content[4:])

    _, heard = prepared(tmp_path / "a")
    _, later = prepared(tmp_path / "a")

    assert [said for said in heard if said.startswith("The prepared")] == [
        f"The prepared data in {values.parent} is damaged or foreign: Etude prepares it again."
    ]
    assert not [said for said in later if said.startswith("The prepared")]


def test_a_damaged_tokenizer_of_the_cache_is_named_and_trained_again(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "a")
    for path in (tmp_path / "a" / "cache" / "tokenizers").iterdir():
        path.write_text(path.read_text().replace("one", "eno"))

    found, heard = prepared(tmp_path / "a")

    assert found == whole[1]
    assert any("is damaged: Etude trains it again" in said for said in heard)


def test_a_table_that_loses_its_values_after_it_was_opened_is_named(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "a")
    (folder,) = (path for path in (tmp_path / "a" / "cache" / "tables").iterdir() if path.is_dir())
    starts = np.fromfile(folder / "source.starts", dtype=np.int64)
    (starts + 10_000).tofile(folder / "source.starts")

    with pytest.raises(StorageError, match=r"source is damaged: a row lies outside of its values"):
        Table(folder).gather("source", np.arange(3))


# -- files with hashes ---------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """Which files are hashed."""
    read = []

    def sha256_of(path, real=hashes.sha256_of):
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(hashes, "sha256_of", sha256_of)
    return read


def aged(path, seconds=100):
    at = time.time() - seconds
    os.utime(path, (at, at))
    return path


def test_a_file_is_hashed_once_for_each_of_its_states(tmp_path, counted, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")
    facts = {"a": Facts.of(tmp_path / "a")}
    monkeypatch.setattr(hashes.time, "time", lambda now=time.time: now() + 10)  # its times have settled
    counted.clear()

    for _ in range(3):
        assert first_damaged(tmp_path, facts, tmp_path / "memory") is None
    assert counted == ["a"]

    (tmp_path / "a").write_bytes(b"abd")
    assert first_damaged(tmp_path, facts, tmp_path / "memory") == tmp_path / "a"
    assert counted == ["a", "a"]


def test_a_file_that_was_written_just_now_is_hashed_again(tmp_path, counted):
    (tmp_path / "a").write_bytes(b"abc")
    facts = {"a": Facts.of(tmp_path / "a")}
    counted.clear()

    for _ in range(2):
        assert first_damaged(tmp_path, facts, tmp_path / "memory") is None

    assert counted == ["a", "a"]


def test_a_memory_that_cannot_be_written_or_read_is_done_without(tmp_path, counted):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "memory").mkdir()

    assert first_damaged(tmp_path, {"a": Facts.of(tmp_path / "a")}, tmp_path / "memory") is None


BAD_JSON = {
    "nested": "[" * 200_000,
    "an object of depth": '{"a":' * 200_000,
    "a list": "[]",
    "no JSON": "{",
    "no UTF-8": b"\xff",
    "a number": "3",
    "nothing": "",
    "too many digits": '{"a": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_is_not_what_it_must_be_is_named(name, tmp_path):
    content = BAD_JSON[name]
    (tmp_path / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(EtudeError, match=r"a\.json is damaged: "):
        read_json(tmp_path / "a.json")


def test_json_that_is_too_large_or_no_regular_file_is_not_read(tmp_path):
    (tmp_path / "large.json").write_text(json.dumps({"a": "b" * 100}))
    os.mkfifo(tmp_path / "pipe.json")

    with pytest.raises(StorageError, match=r"large.json: it has more than 50 bytes"):
        read_json(tmp_path / "large.json", largest=50)
    with pytest.raises(StorageError, match="it must be a regular file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(StorageError, match="it must be a regular file"):
        read_json(Path("/dev/zero"))


def test_a_sealed_object_comes_back_or_is_named(tmp_path):
    path, value = tmp_path / "a.json", {"a": [1, 2.5, None], "b": {"c": "\u00e9"}}
    write_sealed(path, value)
    content = path.read_bytes()

    assert read_sealed(path) == value
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert sealed_or_empty(path) in ({}, value)


@pytest.mark.parametrize("number", ["2.5e999", "-2.5e999", "NaN", "Infinity", r'"\ud83d"'])
def test_a_sealed_object_with_what_json_cannot_hold_is_named(number, tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"a": [1, 2.5]})
    path.write_text(path.read_text().replace("2.5", number))

    with pytest.raises(StorageError, match=r"a\.json is damaged: its content does not have the sha256"):
        read_sealed(path)


def test_a_folder_with_hashes_is_as_it_was_or_names_the_file(tmp_path):
    check_hashes(tmp_path)  # one without is believed
    (tmp_path / "a.json").write_text("one")
    (tmp_path / "sha256").write_text("two")
    write_hashes(tmp_path)
    check_hashes(tmp_path)

    for name in ("a.json", "sha256"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text("eno")
        with pytest.raises(StorageError, match=rf"{name} is damaged: its sha256 differs"):
            check_hashes(tmp_path)
        (tmp_path / name).write_bytes(before)
    (tmp_path / "a.json").unlink()
    with pytest.raises(StorageError, match=r"a\.json is damaged: .* or it is missing"):
        check_hashes(tmp_path)
