"""What a stage reads: another content makes another stage of it, another place or time does not."""

import os

import numpy as np
import pytest
import soundfile
from pipeline_runs import loaded, ran, write
from speech_corpora import CONFIG, RATE, spoken, write_corpus

from etude.app.stages.depends import made_of
from etude.app.stages.pipeline import Choice
from etude.app.stages.shown import standings
from etude.base.errors import DataError
from etude.base.hashes import content_of

TEXT = """
[task]
type = "language_model"
[data]
train = "texts"
val = "val.txt"
[model]
d_model = 8
heads = 1
layers = 1
"""
ARRAYS = """
[task]
type = "classification"
[data]
type = "arrays"
targets = "y"
train = "train.csv"
array = "array"
[train]
max_duration = "1 step"
"""
ONE = '[[stage]]\nname = "one"\n'
MEASURED = '[[stage]]\nname = "two"\ndo = "evaluate"\nmodel = "one"\n'


def config(home, text, stages=ONE):
    path = home / "pipe.toml"
    path.write_text(text + stages, encoding="utf-8")
    return path


def contents(path, name="one"):
    """What a stage reads, by key."""
    node = next(node for node in loaded(path).nodes if node.name == name)
    return made_of(node, dict.fromkeys(node.stage.inputs(), node.made))["contents"]


def differing(before, after):
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


@pytest.fixture
def speech(tmp_path):
    for name, texts in (("train", ["ab", "c"]), ("val", ["b"])):
        write_corpus(tmp_path, name, texts)
    write_corpus(tmp_path, "test", ["a"], seed=5)
    return config(tmp_path, CONFIG.replace('test = "val.csv"', 'test = "test.csv"'))


def test_a_recording_that_a_manifest_lists_is_part_of_its_content(speech):
    before = contents(speech)
    soundfile.write(speech.parent / "train/1.wav", spoken("b", 7), RATE)

    assert differing(before, contents(speech)) == ["data.train"]


def test_the_time_of_a_file_and_files_that_nothing_lists_change_no_content(speech):
    before = contents(speech)
    os.utime(speech.parent / "train/1.wav", (1, 1))
    soundfile.write(speech.parent / "train/99.wav", spoken("b", 7), RATE)

    assert contents(speech) == before


def test_a_training_reads_no_test_data(speech):
    assert list(contents(speech)) == ["data.train", "data.val"]


def test_the_same_content_elsewhere_is_the_same(speech):
    before = contents(speech)
    home = speech.parent
    home.rename(home.with_name("moved"))

    assert contents(home.with_name("moved") / speech.name) == before


def test_files_of_a_folder_count_and_what_is_no_text_among_them_does_not(tmp_path):
    (tmp_path / "texts/in").mkdir(parents=True)
    for name in ("texts/a.txt", "texts/in/b.txt", "val.txt"):
        (tmp_path / name).write_text("a text\n" * 9)
    path = config(tmp_path, TEXT)
    before = contents(path)
    (tmp_path / "texts/picture.png").write_bytes(b"?")
    assert contents(path) == before

    (tmp_path / "texts/in/c.txt").write_text("more\n")
    assert differing(before, contents(path)) == ["data.train"]


def test_data_of_later_epochs_count_too(tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("texts/a.txt", "later.txt", "val.txt"):
        (tmp_path / name).write_text("a text\n" * 9)
    turns = '{ schedule = "stairs", values = ["texts", "later.txt"], every = "1 epoch" }'
    path = config(tmp_path, TEXT.replace('"texts"', turns) + '[train]\nmax_duration = "2 epochs"\n')
    before = contents(path)
    (tmp_path / "later.txt").write_text("another\n")

    assert differing(before, contents(path)) == ["data.train"]


def test_arrays_that_a_table_lists_and_a_tokenizer_from_a_file_count(tmp_path):
    np.save(tmp_path / "0.npy", np.zeros((3, 2), np.float32))
    (tmp_path / "train.csv").write_text("array,y\n0.npy,1\n")
    path = config(tmp_path, ARRAYS)
    before = contents(path)
    np.save(tmp_path / "0.npy", np.ones((3, 2), np.float32))
    assert differing(before, contents(path)) == ["data.train"]

    (tmp_path / "tokens.json").write_text("{}")
    path = write(tmp_path / "other", ONE)
    path.write_text(path.read_text().replace('type = "word"', f'type = "file"\npath = "{tmp_path / "tokens.json"}"'))
    before = contents(path)
    (tmp_path / "tokens.json").write_text("{ }")
    assert differing(before, contents(path)) == ["tokenizer.path"]


def test_data_that_are_gone_end_the_command_and_leave_what_is_done(tmp_path):
    path = write(tmp_path, ONE + 'train.max_duration = "1 step"\n')
    assert ran(path) == ["one"]
    val, said = tmp_path / "val.tsv", []
    val.rename(tmp_path / "away.tsv")

    with pytest.raises(DataError, match=r"data\.val names .*val\.tsv, which does not exist\."):
        ran(path)
    assert "which does not exist)" in standings(loaded(path))[0][1].why
    assert not (tmp_path / "runs/pipe/one.old-1").exists()

    path.write_text(path.read_text() + MEASURED.replace("model", 'split = "train"\nmodel'))
    assert ran(path, choice=Choice(begin="two"), said=said) == ["two"]
    assert any(sentence.startswith("Stage one is used as it is, although what it reads") for sentence in said)


def test_content_is_read_again_only_after_a_change(tmp_path, monkeypatch):
    file, memory = tmp_path / "a", tmp_path / "memory"
    file.write_bytes(b"1")
    os.utime(file, (1, 1))
    monkeypatch.setattr("etude.base.hashes.SETTLED_SECONDS", -1e9)
    before = content_of([file], memory, deep=True)
    with monkeypatch.context() as patch:
        patch.setattr("etude.base.hashes.sha256_of", None)
        assert content_of([file], memory, deep=True) == before

    file.write_bytes(b"2")
    os.utime(file, (1, 1))
    assert content_of([file], memory, deep=True) != before
    assert content_of([file], memory, deep=False) == content_of([file], tmp_path / "other", deep=False)
