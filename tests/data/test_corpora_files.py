"""Generated corpora as files."""

from pathlib import Path

import pytest

from etude.base.errors import ConfigError, StorageError

pytest.importorskip("num2words")
pytest.importorskip("babel")

from etude.data.corpora import NAMES, generate, numbers, writing

SMALL = {"train": 40, "val": 5, "test": 6}


def test_a_corpus_is_three_files_with_a_header_and_one_pair_a_line(tmp_path: Path):
    paths = generate("numbers", tmp_path / "deep" / "folder", sizes=SMALL)

    assert list(paths) == ["train", "val", "test"]
    for split, path in paths.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "source\ttarget"
        assert [tuple(line.split("\t")) for line in lines[1:]] == [
            (pair.source, pair.target) for pair in numbers.pairs(split, 1, SMALL[split])
        ]


def test_complete_files_are_used_again_and_say_nothing(tmp_path: Path):
    said: list[str] = []
    paths = generate("numbers", tmp_path, sizes=SMALL, notice=said.append)
    written = paths["train"].stat().st_mtime_ns

    generate("numbers", tmp_path, sizes=SMALL, notice=said.append)

    assert len(said) == 1
    assert paths["train"].stat().st_mtime_ns == written


@pytest.mark.parametrize("harm", ["missing label", "missing file", "cut file", "torn label"])
def test_what_is_unfinished_or_changed_is_made_again(tmp_path: Path, harm: str):
    paths = generate("numbers", tmp_path, sizes=SMALL)
    whole = paths["val"].read_bytes()
    label = tmp_path / writing.LABEL
    if harm == "missing label":
        label.unlink()
    elif harm == "missing file":
        paths["val"].unlink()
    elif harm == "cut file":
        paths["val"].write_bytes(whole[:-5])
    else:
        label.write_text("{", encoding="utf-8")

    generate("numbers", tmp_path, sizes=SMALL)

    assert paths["val"].read_bytes() == whole
    assert label.exists()


@pytest.mark.parametrize("change", ["seed", "sizes", "generator"])
def test_another_seed_size_or_generator_makes_other_files(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    generate("numbers", tmp_path, sizes=SMALL, notice=said.append)
    if change == "generator":
        monkeypatch.setattr(writing, "generator_version", lambda: "another")

    generate(
        "numbers",
        tmp_path,
        seed=2 if change == "seed" else 1,
        sizes=SMALL if change != "sizes" else {**SMALL, "val": 7},
        notice=said.append,
    )

    assert len(said) == 2


def test_wrong_names_sizes_and_places_are_sentences(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")

    with pytest.raises(ConfigError, match="no generated corpus 'number'; there is: numbers"):
        generate("number", tmp_path)
    with pytest.raises(ConfigError, match="'dev' has 5"):
        generate("numbers", tmp_path, sizes={"dev": 5})
    with pytest.raises(ConfigError, match="'val' has 0"):
        generate("numbers", tmp_path, sizes={"val": 0})
    with pytest.raises(StorageError, match="Cannot make the folder"):
        generate("numbers", blocked / "below", sizes=SMALL)
    assert NAMES == ("numbers",)


def test_asking_for_more_than_there_is_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    one = numbers.Pair("The answer is 5.", "La respuesta es cinco.", (), ())
    monkeypatch.setattr(numbers, "_pair", lambda _split, _chance: one)
    monkeypatch.setattr(numbers, "_PATIENCE", 10)

    with pytest.raises(ConfigError, match="no 2 different pairs for test"):
        list(numbers.pairs("test", size=2))
