"""What `[data]` says about text is read as it is meant."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from etude.base.schedules import ScheduleSection
from etude.data.files.text_split import SplitRule
from etude.tasks.language_model.config import TextDataConfig, WeighedText


def test_a_path_a_list_a_name_and_a_mixture_are_told_apart(tmp_path):
    def train(value):
        return TextDataConfig(train=value).train

    assert train(str(tmp_path / "texts")) == tmp_path / "texts"
    assert train("python") == "python"
    assert train([str(tmp_path / "a"), str(tmp_path / "b")]) == (tmp_path / "a", tmp_path / "b")
    mixed = train([{"path": str(tmp_path / "a"), "weight": 3}, {"path": "python_docs"}])
    assert mixed == (WeighedText(path=tmp_path / "a", weight=3.0), WeighedText(path="python_docs", weight=1.0))


def test_weights_and_block_sizes_may_be_schedules():
    ramp = {"schedule": "linear", "from": 1.0, "to": 3.0, "over": "3 epochs"}
    sizes = {"schedule": "linear", "from": 64, "to": 256, "over": "3 epochs"}

    config = TextDataConfig(train=[{"path": "python", "weight": ramp}], block_size=sizes)

    assert isinstance(config.block_size, ScheduleSection)
    assert isinstance(config.train[0].weight, ScheduleSection)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, SplitRule()),
        ({"split": [0.9, 0.1], "split_by": "position"}, SplitRule((0.9, 0.1), "position")),
        ({"split": False}, None),
        ({"val": "val.txt"}, None),
    ],
)
def test_the_rule_of_division_follows_the_keys(given, rule):
    assert TextDataConfig(train="train.txt", **given).rule == rule


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": [0.9, 0.2]},
        {"split": [1.0]},
        {"split": [1.1, -0.1]},
        {"split_by": "line"},
        {"block_size": 0},
        {"packing": "none"},
        {"order": "sorted"},
        {"max_skipped": "1.5"},
        {"train": [{"weight": 1}]},
        {"train": [{"path": "a", "weight": -1}]},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ValidationError):
        TextDataConfig(**wrong)


def test_a_written_config_reads_back():
    config = TextDataConfig(train=[{"path": "python", "weight": 2}, {"path": "/a"}], split=[0.9, 0.1], block_size=64)

    assert TextDataConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.train[1].path == Path("/a")
