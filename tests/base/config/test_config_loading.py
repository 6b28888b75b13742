import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.config.loading import difference, load
from etude.base.durations import Duration
from etude.base.errors import ConfigError

WHOLE = """\
[train]
max_duration = ["3 epochs", "500 steps"]
batch_tokens = 4096
clip_grad = 1
limit = 3
patience = "2 epochs"
[data]
train = { source = "a.en", target = "sub/../a.de" }
[optimizer]
learning_rate = { schedule = "linear", from = 1e-05, over = "5 %" }
weight_decay = inf
[[optimizer.groups]]
match = "encoder.*"
deep = { a = [1, 2.0, "x"] }
"""


def test_a_config_is_typed_and_complete(loaded, tmp_path):
    config = loaded(WHOLE).config

    assert config.train.max_duration == [Duration(3, "epochs"), Duration(500, "steps")]
    assert config.train.clip_grad == 1.0
    assert config.train.limit == 3
    assert config.data.train.target == tmp_path / "a.de"
    assert config.optimizer.learning_rate.over == Duration(5, "percent")
    assert config.optimizer.groups[0]["deep"] == {"a": [1, 2.0, "x"]}


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        "[run]\nseed = 2",
        "[data]\ntrain = ['a', 'b']\n[optimizer]\ntype = 'sgd'",
        "[data]\ntrain = 'numbers'",
        "[optimizer]\ntype = 'net.py:Lion'\nbeta = 0.9\nnested = { a = { b = false } }",
        "[optimizer]\ntype = 'pkg.mod:Lion'\nlearning_rate = { schedule = 'cosine', peak = 1.0, warmup = 'none' }",
        '[run]\nname = "quote \\" slash \\\\ bell \\u0007 line\\n ünï 🎼"',
    ],
)
def test_the_composed_config_loads_back_to_an_equal_one(loaded, text):
    first = loaded(text)

    second = loaded(first.toml(), name="composed.toml")

    assert second.config == first.config
    assert second.toml() == first.toml()


@settings(max_examples=50, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.floats(0, exclude_min=True) | st.none(),
    st.integers(1, 10**9),
)
def test_any_values_load_back_equal(tmp_path_factory, root, name, clip, tokens):
    path = tmp_path_factory.getbasetemp() / "values.toml"
    values = {"run.name": name, "train.clip_grad": clip, "train.batch_tokens": tokens}
    first = load(root, None, values)

    path.write_text(first.toml(), encoding="utf-8", newline="")

    assert load(root, path).config == first.config
    assert first.config.run.name == name
    assert first.config.train.batch_size is None


def test_a_file_changes_what_it_extends_key_by_key(loaded, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.toml").write_text("[train]\nclip_grad = 1.0\ncompile = true\n[data]\ntrain = 'x.tsv'\n")
    (tmp_path / "b.toml").write_text("extends = 'sub/a.toml'\n[train]\nclip_grad = 2.0\n")
    (tmp_path / "c.toml").write_text("[run]\nseed = 7\n")

    found = loaded("extends = ['b.toml', 'c.toml']\n[run]\nname = 'x'\n")

    assert (found.config.train.clip_grad, found.config.train.compile, found.config.run.seed) == (2.0, True, 7)
    assert found.config.data.train == tmp_path / "sub" / "x.tsv"
    assert str(found.origin("train.clip_grad")) == "b.toml, line 3"
    assert str(found.origin("train.compile")) == "sub/a.toml, line 3"
    assert str(found.origin("train.precision")) == "default"


def test_files_that_extend_each_other_are_refused(problems, tmp_path):
    (tmp_path / "b.toml").write_text("extends = 'run.toml'\n")

    assert problems("extends = 'b.toml'\n") == ["run.toml extends itself: run.toml -> b.toml -> run.toml."]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("extends = 3", "extends must be the path of a config file or a list of them (run.toml, line 1)."),
        ("\nextends = 'no'", 'extends names "no", but no is not a file (run.toml, line 2).'),
    ],
)
def test_a_wrong_extends_gets_one_sentence(problems, text, sentence):
    assert problems(text) == [sentence]


@pytest.mark.parametrize(
    ("base", "later", "rate"),
    [
        ("{ schedule = 'cosine', peak = 1.0, warmup = '5 steps' }", "{ peak = 2.0 }", ("cosine", 2.0, True)),
        (
            "{ schedule = 'cosine', peak = 1.0, warmup = '5 steps' }",
            "{ schedule = 'cosine', peak = 2.0 }",
            ("cosine", 2.0, False),
        ),
        ("1e-3", "{ schedule = 'cosine', peak = 2.0 }", ("cosine", 2.0, False)),
    ],
)
def test_a_table_that_names_its_schedule_replaces_the_earlier_one(loaded, tmp_path, base, later, rate):
    (tmp_path / "base.toml").write_text(f"[optimizer]\nlearning_rate = {base}\n")

    found = loaded(f"extends = 'base.toml'\n[optimizer]\nlearning_rate = {later}\n").config.optimizer.learning_rate

    assert (found.schedule, found.peak, found.warmup is not None) == rate


@pytest.mark.parametrize(("name", "kept"), [("adamw", True), ("sgd", False)])
def test_only_another_type_replaces_a_component(loaded, tmp_path, name, kept):
    (tmp_path / "base.toml").write_text("[optimizer]\nlearning_rate = 0.5\n")

    found = loaded(f"extends = 'base.toml'\n[optimizer]\ntype = '{name}'\n").data["optimizer"]

    assert (found.get("learning_rate") == 0.5) is kept


@pytest.mark.parametrize(
    ("base", "later", "size", "tokens"),
    [
        ("", "", 64, None),
        ("batch_size = 8", "", 8, None),
        ("", "batch_tokens = 9", None, 9),
        ("batch_size = 8", "batch_tokens = 9", None, 9),
        ("batch_tokens = 9", "batch_size = 8", 8, None),
        ("batch_tokens = 9", "batch_size = false", None, 9),
        ("batch_tokens = 9", "batch_size = 8\nbatch_tokens = false", 8, None),
    ],
)
def test_of_an_exclusive_pair_the_later_layer_counts(loaded, tmp_path, base, later, size, tokens):
    (tmp_path / "base.toml").write_text(f"[train]\n{base}\n")

    train = loaded(f"extends = 'base.toml'\n[train]\n{later}\n").config.train

    assert (train.batch_size, train.batch_tokens) == (size, tokens)


def test_an_exclusive_pair_in_one_layer_is_an_error(problems):
    assert problems("[train]\nbatch_size = 1\nbatch_tokens = 2\ncompile = 3") == [
        (
            "train.batch_size and train.batch_tokens exclude each other: keep one of them "
            "(run.toml, line 2 and run.toml, line 3)."
        ),
        "train.compile must be true or false, but is 3 (run.toml, line 4).",
    ]


def test_the_command_line_wins_and_its_last_flag_counts(loaded, tmp_path):
    found = loaded(
        "[train]\nclip_grad = 1.0\n[data]\ntrain = { source = 'a', target = 'b' }\n",
        *["--train.clip_grad", "2", "--train.clip_grad=3", "--run.name", "5", "--data.train", "7"],
        *["--optimizer.learning_rate", "{ schedule = 'cosine', peak = 1.0 }", "--optimizer.learning_rate.peak=2.0"],
    )

    assert found.config.train.clip_grad == 3.0
    assert found.config.run.name == "5"
    assert found.config.data.train == tmp_path / "7"
    assert found.config.optimizer.learning_rate.peak == 2.0
    assert str(found.origin("train.clip_grad")) == "--train.clip_grad on the command line"


@pytest.mark.parametrize("off", ["none", "false", "off", "OFF"])
def test_an_optional_setting_is_switched_off(loaded, off):
    assert loaded("[train]\nclip_grad = 1.0\n", "--train.clip_grad", off).config.train.clip_grad is None


def test_what_the_command_line_gives_for_data_replaces_the_whole(problems):
    found = problems("[data]\ntrain = { source = 'a', target = 'b' }\n", "--data.train.source", "c")

    assert found == ["data.train.target is missing: set it in [data.train] (--data.train.source on the command line)."]


def test_paths_are_relative_to_their_file_and_names_are_left_alone(loaded, tmp_path, monkeypatch, root):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.toml").write_text("[data]\ntrain = ['a', '../b', '/c']\n[optimizer]\ntype = 'net.py:f'\n")

    found = load(root, Path("sub/x.toml") if monkeypatch.chdir(tmp_path) else "sub/x.toml").config

    assert found.data.train == (tmp_path / "sub" / "a", tmp_path / "b", Path("/c"))
    assert found.optimizer.type == f"{tmp_path}/sub/net.py:f"
    assert load(root, None, {"data.train": "numbers"}).config.data.train == "numbers"


def test_a_part_imported_from_a_file_is_found_beside_the_config_wherever_it_is_named(loaded, tmp_path):
    found = loaded(
        "[optimizer]\ntype = 'pkg:Lion'\nparts = ['net.py:f', 'no path.txt', { schedule = '../net.py:g.h' }]\n"
    )

    assert found.data["optimizer"]["parts"] == [
        f"{tmp_path}/net.py:f",
        "no path.txt",
        {"schedule": f"{tmp_path.parent}/net.py:g.h"},
    ]


def test_every_value_is_listed_with_where_it_came_from(loaded):
    rows = {key: (value, str(origin)) for key, value, origin in loaded(WHOLE, "--run.seed", "3").values()}

    assert rows["run.seed"] == (3, "--run.seed on the command line")
    assert rows["train.limit"] == (3, "run.toml, line 5")
    assert rows["train.compile"] == (False, "default")
    assert rows["optimizer.learning_rate.over"] == ("5 %", "run.toml, line 10")


def test_python_gives_overrides_as_a_mapping(root):
    found = load(root, None, {"optimizer.learning_rate": 3e-4, "train.eval_every": Duration(5, "steps")})

    assert found.config.optimizer.learning_rate == 3e-4
    assert found.config.train.eval_every == Duration(5, "steps")
    assert str(found.origin("optimizer.learning_rate")) == 'overrides["optimizer.learning_rate"]'


def test_the_difference_of_two_configs_is_a_list_of_keys(loaded):
    before, after = loaded(WHOLE).data, loaded(WHOLE, "--train.clip_grad", "2", "--run.name", "y").data

    assert difference(before, after) == [("run.name", "run", "y"), ("train.clip_grad", 1.0, 2.0)]
    assert difference(before, before) == []
    assert difference({"a": 1}, {"b": True}) == [("a", 1, None), ("b", None, True)]


def test_the_package_itself_imports_nothing():
    code = "import sys, etude.base.config; sys.exit('pydantic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_config_may_not_be_deeper_than_sense(root):
    with pytest.raises(ConfigError, match="64 levels"):
        load(root, None, [f"--{'a.' * 70}b", "1"])
