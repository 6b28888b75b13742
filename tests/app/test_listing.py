"""`etude runs`: filters, columns, orders, groups of seeds, and what it never does."""

import csv
import io
import json

import pytest
from listed_runs import ASKED_TO_BREAK, made

from etude.__main__ import main


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs"
    made(place / "small-1", 2.5, seed=1, test=1.0)
    made(place / "small-2", 2.3, seed=2, test=9.0, logged="false")
    made(place / "small-3", 2.1, seed=3)
    made(place / "sweep" / "large-1", 2.0, seed=1, layers=4, rate=3e-4)
    made(place / "sweep" / "large-2", 2.2, seed=2, layers=4, rate=3e-4)
    made(place / "broken", ended=None, layers=8)
    made(place / "paused", 2.9, ended=ASKED_TO_BREAK, layers=6)
    return place


def listed(capsys, *words):
    code = main(["runs", *words])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out.splitlines()


def names(capsys, *words):
    return [json.loads(line)["name"] for line in listed(capsys, "--json", *words)]


def refusal(capsys, *words):
    assert main(["runs", *words]) == 2
    return capsys.readouterr().err


def test_runs_in_folders_inside_are_listed_by_the_way_to_them(runs, capsys):
    found = names(capsys)

    assert set(found) == {"small-1", "small-2", "small-3", "sweep/large-1", "sweep/large-2", "broken", "paused"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("optimizer.learning_rate < 1e-3", {"sweep/large-1", "sweep/large-2"}),
        ("val/loss < 2.15", {"small-3", "sweep/large-1"}),
        ("best < 2.15 and model.layers == 2", {"small-3"}),
        ("state in ['failed', 'interrupted']", {"broken", "paused"}),
        ("val/perplexity >= 5", {"small-1", "paused"}),
        ("log.tensorboard == false", {"small-2"}),
    ],
)
def test_a_condition_chooses_by_config_metrics_and_state(condition, expected, runs, capsys):
    assert set(names(capsys, "--where", condition)) == expected


def test_several_conditions_all_hold(runs, capsys):
    assert set(names(capsys, "--where", "val/loss < 2.4", "--where", "run.seed == 2")) == {"small-2", "sweep/large-2"}


def test_a_key_sorts_the_smallest_first_and_runs_without_it_last(runs, capsys):
    order = names(capsys, "--sort", "val/loss")

    assert order == ["sweep/large-1", "small-3", "sweep/large-2", "small-2", "small-1", "paused", "broken"]
    assert names(capsys, "--sort", "val/loss", "--reverse") == [*order[5::-1], "broken"]
    groups = [json.loads(line)["group"] for line in listed(capsys, "--group", "--json", "--reverse")]
    assert groups == ["paused", "small", "sweep/large", "broken"]


def test_the_test_set_never_ranks(runs, capsys):
    assert "the test set never ranks" in refusal(capsys, "--sort", "test/loss")
    assert "the test set never ranks" in refusal(capsys, "--where", "test/loss < 2")
    assert [
        json.loads(line) for line in listed(capsys, "--json", "--columns", "test/loss", "--where", "name == 'small-1'")
    ] == [{"test/loss": 1.0}]


def test_a_key_that_no_run_has_is_an_error_with_the_nearest(runs, capsys):
    assert "did you mean optimizer.learning_rate?" in refusal(capsys, "--where", "optimizer.learning_rat < 1")
    assert "did you mean val/loss?" in refusal(capsys, "--sort", "val/los")
    assert "texts stand in quotes" in refusal(capsys, "--where", "state == finished")
    assert "did you mean model.layers?" in refusal(capsys, "--columns", "model.layer")
    assert "--columns must name a key or several" in refusal(capsys, "--columns", " , ")


def test_columns_are_what_is_asked_for(runs, capsys):
    lines = listed(capsys, "--columns", "name, model.layers,val/loss", "--sort", "val/loss")

    assert lines[0].split() == ["name", "model.layers", "val/loss"]
    assert lines[1].split() == ["sweep/large-1", "4", "2"]
    assert lines[-1].split() == ["broken", "8"]


def test_csv_reads_back(runs, capsys):
    text = "\n".join(listed(capsys, "--csv", "--columns", "name,best,data,train.monitor", "--sort", "best"))

    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {
        "name": "sweep/large-1",
        "best": "2.0",
        "data": '{ train = "texts" }',
        "train.monitor": "val/loss",
    }
    assert rows[-1]["best"] == ""


def test_json_and_csv_exclude_each_other(runs, capsys):
    assert "--json and --csv" in refusal(capsys, "--csv", "--json")


def test_seeds_are_grouped_whatever_they_are_called_and_log(runs, capsys):
    groups = {row["group"]: row for row in map(json.loads, listed(capsys, "--group", "--json"))}

    small, large = groups["small"], groups["sweep/large"]
    assert (small["runs"], small["best"], small["best_run"]) == (3, 2.1, "small-3")
    assert small["mean"] == pytest.approx(2.3)
    assert small["deviation"] == pytest.approx(0.2)
    assert large["members"] == ["sweep/large-1", "sweep/large-2"]
    assert large["optimizer.learning_rate"] == 3e-4
    assert set(groups) == {"small", "sweep/large", "broken", "paused"}


def test_groups_stand_the_best_mean_first_and_show_what_tells_them_apart(runs, capsys):
    lines = listed(capsys, "--group", "--where", "state == 'finished'")

    assert lines[0].split()[:6] == ["group", "runs", "mean", "val/loss", "deviation", "best"]
    assert {"model.layers", "optimizer.learning_rate"} <= set(lines[0].split())
    assert [line.split()[0] for line in lines[1:]] == ["sweep/large", "small"]


def test_a_number_here_and_a_schedule_there_are_one_key_that_tells_groups_apart(runs, capsys):
    made(runs / "decayed", 1.9, rate='{ schedule = "cosine", peak = 1e-2 }')

    rows = [json.loads(line) for line in listed(capsys, "--group", "--json", "--where", "state == 'finished'")]

    assert [row["optimizer.learning_rate"] for row in rows] == [{"schedule": "cosine", "peak": 1e-2}, 3e-4, 1e-3]
    assert not [key for key in rows[0] if key.startswith("optimizer.learning_rate.")]


def test_a_config_that_has_left_no_run_yet_has_not_failed(runs, capsys):
    for name in ("begins", "stopped"):
        (runs / name).mkdir()
        (runs / name / "config.toml").write_text((runs / "broken/config.toml").read_text())
        (runs / name / "log.txt").touch()
    (runs / "stopped/log.txt").write_text("etude: texts is not there.\n")

    assert names(capsys, "--where", "state == 'waiting'") == ["begins"]
    assert set(names(capsys, "--where", "state == 'failed'")) == {"broken", "stopped"}


def test_a_column_of_a_group_is_the_mean_where_its_runs_differ(runs, capsys):
    rows = [
        json.loads(line) for line in listed(capsys, "--group", "--json", "--columns", "val/perplexity,model.layers")
    ]

    small = next(row for row in rows if row["group"] == "small")
    assert small["val/perplexity"] == {"runs": 3, "mean": pytest.approx(4.6), "deviation": pytest.approx(0.4)}
    assert small["model.layers"] == 2


def test_a_metric_whose_mode_is_unknown_has_no_best(tmp_path, capsys):
    run = made(tmp_path / "a", 2.0)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("val/loss", "val/wonder"))
    manifest = run / "checkpoints/best/manifest.json"
    manifest.write_text(manifest.read_text().replace("val/loss", "val/wonder"))

    (row,) = map(json.loads, listed(capsys, str(tmp_path), "--group", "--json"))

    assert (row["mean"], row["best"], row["best_run"]) == (2.0, None, None)


def test_links_inside_are_not_followed(runs, capsys):
    (runs / "sweep" / "again").symlink_to(runs)

    assert len(names(capsys)) == 7


def test_nothing_that_meets_a_condition_is_said(runs, capsys):
    main(["runs", "--where", "val/loss < 0"])

    assert "None of the 7 runs in runs meets the condition." in capsys.readouterr().err
