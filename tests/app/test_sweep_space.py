"""What a sweep is made of: flags, keys, tables, ranges, conditions and names."""

import os
from pathlib import Path

import pytest
from scipy.stats import kstest, qmc
from sweeps import written

from etude.app.sweep.plan import read_plan
from etude.base.errors import ConfigError, RefusedError
from etude.tasks.config import load_config

GRID = """
[sweep.keys]
optimizer.learning_rate = [1e-2, 1e-3]
"run.seed" = [1, 2, 3]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(config, *words):
    return list(read_plan(config, words).points)


def refused(config, *words):
    with pytest.raises(ConfigError) as raised:
        _ = read_plan(config, words).points
    return str(raised.value)


def test_flags_give_a_grid_whose_last_key_changes_first(place):
    found = names(written(place), "--optimizer.learning_rate", "1e-3,3e-4", "--run.seed=1,2")

    assert found == [
        "learning_rate=0.001,seed=1",
        "learning_rate=0.001,seed=2",
        "learning_rate=0.0003,seed=1",
        "learning_rate=0.0003,seed=2",
    ]


def test_a_section_gives_the_same_grid_as_flags(place):
    flags = "--optimizer.learning_rate", "1e-2,1e-3", "--run.seed", "1,2,3"

    plan = read_plan(written(place, GRID), ())

    assert list(plan.points) == names(written(place), *flags)


def test_a_flag_takes_the_place_of_a_keys_values(place):
    config = written(place, GRID)

    assert names(config, "--run.seed", "7,8", "--optimizer.learning_rate", "0.5") == ["seed=7", "seed=8"]


def test_a_list_is_one_value_and_commas_in_quotes_part_nothing(place):
    plan = read_plan(written(place), ("--train.freeze", "['a', 'b'],[]", "--run.seed", "1"))

    assert [point.values["train.freeze"] for point in plan.points.values()] == [["a", "b"], []]
    assert plan.load("x", {"train.freeze": ["a", "b"]}).config.train.freeze == ["a", "b"]


def test_tables_change_keys_together_and_are_combined_with_the_other_keys(place):
    tables = """
[[sweep.tables]]
name = "narrow"
model.d_model = 8
model.heads = 2
[[sweep.tables]]
model.d_model = 32
model.heads = 4
"""
    plan = read_plan(written(place, tables), ("--run.seed", "1,2"))

    assert list(plan.points) == [
        "narrow,seed=1",
        "narrow,seed=2",
        "d_model=32,heads=4,seed=1",
        "d_model=32,heads=4,seed=2",
    ]
    assert plan.points["narrow,seed=2"].values == {"model.d_model": 8, "model.heads": 2, "run.seed": 2}


@pytest.mark.parametrize(
    "where",
    [
        "optimizer.learning_rate < 5e-3 or run.seed == 1",
        "not (optimizer.learning_rate >= 5e-3 and run.seed in [2, 3])",
        "0 < run.seed * model.heads <= 2 or optimizer.learning_rate == 1e-3",
    ],
)
def test_conditions_are_expressions_over_keys_swept_or_not(place, where):
    config = written(place, GRID + f'[sweep]\nwhere = "{where}"\n')

    assert names(config) == ["learning_rate=0.01,seed=1", *(f"learning_rate=0.001,seed={seed}" for seed in (1, 2, 3))]


def test_a_condition_may_be_a_function_of_the_users_beside_the_config(place):
    (place / "kept.py").write_text("def odd(values):\n    return values['run.seed'] % 2 == 1\n")
    config = written(place, GRID + '[sweep]\nwhere = ["kept.py:odd", "optimizer.learning_rate > 5e-3"]\n')

    assert names(config) == ["learning_rate=0.01,seed=1", "learning_rate=0.01,seed=3"]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("__import__('os').system('true')", "Call"),
        ("run.seed ==", "is none"),
        ("model.width > 3", "names model.width, which the config does not have"),
        ("run.seed < 'a'", "cannot be told"),
        ("run.seed > 9", "allows none"),
        ("run.seed in [x for x in run.seed]", "ListComp"),
        ("2 ** 999", "Pow"),
    ],
)
def test_a_condition_that_is_none_is_refused_and_never_run(place, where, says):
    assert says in refused(written(place, GRID), "--sweep.where", where)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "needs keys with several values"),
        (("--run.seed", "1,,2"), "before and after each comma"),
        (("--run.seed", "1,1"), "holds 1 twice"),
        (("--run.name", "a,b"), "run.name cannot be swept"),
        (("--optimizer.learning_rate", "{ min = 1e-5, max = 1e-2 }"), "a grid needs values"),
        (("--run.seed", "1,2", "--sweep.method", "random"), "sweep.trials must be given"),
        (("--run.seed", "1,2", "--sweep.trials", "3"), "a grid runs all"),
        (("--run.seed", "1,2", "--sweep.metric", "val/mine"), "give sweep.goal"),
        (("--run.seed", "1,2", "--sweep.metod", "grid"), "sweep.method"),
        (("--optimizer", "{},{learning_rate = 1}", "--optimizer.learning_rate", "1,2"), "lies inside optimizer"),
        (("--optimizer", "{},{learning_rate = 1}", "--optimizer.learning_rate", "1"), "lies inside optimizer"),
        (("--run.seed", "{ min = 2, max = 1 }"), "must be below its max"),
        (("--run.seed", "{ min = 0, max = 1, log = true }"), "must be above 0"),
        (("--run.seed", "{ min = 0, max = 1, stop = 2 }"), "no key of a range"),
        (("--run.seed", "1,2", "--sweep.state", "postgresql://me:secret@host/name"), "must hold no password"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_written(place, words, says):
    before = sorted(Path(written(place)).parent.iterdir())

    assert says in refused(str(place / "small.toml"), *words)

    assert sorted(place.iterdir()) == before


def test_the_folder_of_a_run_is_no_place_for_a_sweep(place):
    config = written(place)
    (place / "runs/small").mkdir(parents=True)
    (place / "runs/small/config.toml").write_text("")

    with pytest.raises(RefusedError, match="is the folder of a run"):
        read_plan(config, ("--run.seed", "1,2"))


def test_a_table_and_a_flag_that_set_the_same_key_are_refused(place):
    tables = "[[sweep.tables]]\nmodel.d_model = 8\n"

    assert "model.d_model is in [[sweep.tables]]" in refused(written(place, tables), "--model.d_model", "8,16")


def test_training_passes_a_sweep_over(place):
    with_sweep, without = load_config(written(place, GRID)), load_config(written(place))

    assert with_sweep.config == without.config
    assert with_sweep.toml() == without.toml()


def test_a_run_of_a_sweep_has_the_config_of_a_single_run(place):
    plan = read_plan(written(place, GRID), ("--model.d_model", "32"))
    values = {"optimizer.learning_rate": 1e-3, "run.seed": 2}

    swept = plan.load("learning_rate=0.001,seed=2", values)

    alone = load_config(place / "small.toml", {**values, "model.d_model": 32, "run.name": "learning_rate=0.001,seed=2"})
    assert {**swept.data, "run": None} == {**alone.data, "run": None}
    assert swept.config.folder == place / "runs/small/learning_rate=0.001,seed=2"


def test_paths_of_a_section_are_relative_to_their_file_and_those_of_flags_to_the_current_folder(place, monkeypatch):
    config = written(place, '[sweep.keys]\ndata.train = ["a.txt", "b.txt"]\n')
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    plan = read_plan(config, ("--data.val", "c.txt,d.txt"))

    paths = [plan.load(name, {**point.values}).data["data"] for name, point in plan.points.items()]

    assert [Path(path["train"]) for path in paths] == [place / name for name in ("a.txt", "a.txt", "b.txt", "b.txt")]
    assert [Path(path["val"]) for path in paths] == [place / "elsewhere" / name for name in ("c.txt", "d.txt")] * 2


def test_names_are_folders_names_whatever_the_values_are(place):
    words = "--data.train", "a/b.txt,'a b.txt',../a_b.txt", "--train.freeze", f"['{'x' * 99}'],['{'x' * 98}']"

    found = names(written(place), *words)

    assert len(set(found)) == 6
    assert all(os.sep not in name and len(name) <= 160 and not name.startswith(".") for name in found)


def test_the_name_of_a_run_does_not_hang_on_the_other_values(place):
    config = written(place)

    few = names(config, "--data.train", "a/b.txt,c.txt")
    more = names(config, "--data.train", "c.txt,d.txt,a/b.txt,e f.txt")

    assert set(few) < set(more)


RANGES = (
    "--optimizer.learning_rate",
    "{ min = 1e-5, max = 1e-1, log = true }",
    "--model.feedforward",
    "{ min = 8, max = 64, step = 8 }",
    "--run.seed",
    "{ min = 1, max = 3 }",
)


@pytest.mark.parametrize("method", ["random", "quasi_random"])
def test_draws_lie_in_their_ranges_and_more_of_them_begin_with_the_same(place, method):
    config, words = written(place), (*RANGES, "--sweep.method", method, "--sweep.trials")

    few, many = (read_plan(config, (*words, count)).points for count in ("8", "64"))

    assert list(many.items())[:8] == list(few.items())
    drawn = [point.values for point in many.values()]
    assert {values["model.feedforward"] for values in drawn} == set(range(8, 65, 8))
    assert {values["run.seed"] for values in drawn} == {1, 2, 3}
    assert all(1e-5 <= values["optimizer.learning_rate"] <= 1e-1 for values in drawn)


def test_draws_on_a_log_scale_are_even_on_it(place):
    words = (*RANGES[:2], "--sweep.method", "random", "--sweep.trials", "200", "--sweep.seed", "3")

    drawn = [point.values["optimizer.learning_rate"] for point in read_plan(written(place), words).points.values()]

    assert kstest(drawn, "loguniform", args=(1e-5, 1e-1)).pvalue > 0.05


def test_quasi_random_draws_fill_the_space_more_evenly_than_random_ones(place):
    words = (
        "--train.clip_grad",
        "{min = 0.001, max = 1}",
        "--model.dropout",
        "{min = 0, max = 0.9}",
        "--sweep.trials",
        "64",
    )
    found = {}
    for method in ("random", "quasi_random"):
        points = read_plan(written(place), (*words, "--sweep.method", method)).points.values()
        cube = [[(p.values["train.clip_grad"] - 0.001) / 0.999, p.values["model.dropout"] / 0.9] for p in points]
        found[method] = qmc.discrepancy(cube)

    assert found["quasi_random"] < found["random"] / 4


def test_draws_meet_the_conditions_and_none_comes_twice(place):
    words = ("--run.seed", "1,2,3,4", "--sweep.method", "random", "--sweep.where", "run.seed != 2", "--sweep.trials")

    found = read_plan(written(place), (*words, "3")).points.values()

    assert sorted(point.values["run.seed"] for point in found) == [1, 3, 4]
    assert "beyond the first 3" in refused(written(place), *words, "4")
