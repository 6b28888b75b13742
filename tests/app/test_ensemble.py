"""`etude ensemble`: probabilities of several runs averaged as numpy does it, measured as scikit-learn does it."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, mean_absolute_error

import etude
from etude.__main__ import main
from etude.app.new.project import new

LABELS = ["cat", "dog", "owl"]
N = 40


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name, rows, labels=LABELS, config="", split="val", best=1.0):
    """The folder of a run that has saved these rows."""
    folder = Path("runs", name)
    (folder / "outputs").mkdir(parents=True)
    (folder / "tokenizers").mkdir()
    (folder / "checkpoints/best").mkdir(parents=True)
    (folder / "config.toml").write_text('[train]\nmonitor = "val/loss"\n' + config)
    (folder / "checkpoints/best/manifest.json").write_text(json.dumps({"step": 1, "metrics": {"val/loss": best}}))
    if labels is not None:
        kept = {"targets": {"kind": "label", "names": labels}}
        (folder / "tokenizers/columns.json").write_text(json.dumps(kept))
    (folder / "outputs" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "outputs/saved.json").write_text(json.dumps({split: {"file": f"{split}.jsonl", "step": 1}}))
    return str(folder)


def drawn(seed, count=N, width=3):
    draw = np.random.default_rng(seed)
    return draw.dirichlet([1.0] * width, count)


TRUE = [LABELS[number] for number in np.random.default_rng(0).integers(0, 3, N)]


def rows_of(scores, targets=TRUE, labels=LABELS):
    return [
        {
            "sample": number,
            "source": f"text {number}",
            "target": target,
            "prediction": labels[int(np.argmax(row))],
            "scores": list(map(float, row)),
            "loss": 1.0,
        }
        for number, (row, target) in enumerate(zip(scores, targets, strict=True))
    ]


def told(capsys, *words, code=0):
    assert main(["ensemble", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_mean_of_probabilities_is_numpys_and_its_metrics_are_those_of_scikit_learn(place, capsys):
    scores = [drawn(seed) for seed in (1, 2, 3)]
    runs = [written(f"run-{number}", rows_of(one)) for number, one in enumerate(scores)]

    found = told(capsys, *runs, "--output", "together.jsonl")

    mean = np.mean(scores, axis=0)
    predicted = [LABELS[number] for number in mean.argmax(1)]
    assert found["ensemble"] == pytest.approx(
        {
            "loss": log_loss(TRUE, mean, labels=LABELS),
            "accuracy": accuracy_score(TRUE, predicted),
            "balanced_accuracy": balanced_accuracy_score(TRUE, predicted),
            "f1_macro": f1_score(TRUE, predicted, average="macro"),
        }
    )
    rows = [json.loads(line) for line in Path("together.jsonl").read_text().splitlines()]
    assert np.allclose([row["scores"] for row in rows], mean, atol=1e-15)
    assert [row["prediction"] for row in rows] == predicted
    assert [row["target"] for row in rows] == TRUE
    assert list(rows[0]) == ["sample", "source", "target", "prediction", "scores", "loss"]
    alone = [accuracy_score(TRUE, [row["prediction"] for row in rows_of(one)]) for one in scores]
    assert [run["metrics"]["accuracy"] for run in found["runs"]] == pytest.approx(alone)


def test_the_rows_of_a_parquet_file_are_the_same(place, capsys):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    runs = [written(f"run-{seed}", rows_of(drawn(seed))) for seed in (1, 2)]

    told(capsys, *runs, "--output", "a.parquet")
    told(capsys, *runs, "--output", "b.jsonl")

    rows = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
    assert pq.read_table("a.parquet").to_pylist() == rows
    assert not list(place.glob(".*"))


def test_a_folder_of_runs_stands_for_all_and_the_best_are_those_by_the_monitored_metric(place, capsys):
    scores = [drawn(seed) for seed in range(4)]
    for number, one in enumerate(scores):
        written(f"run-{number}", rows_of(one), best=[0.4, 0.1, 0.3, 0.2][number])
    Path("runs/best").symlink_to("run-1")

    assert [run["name"] for run in told(capsys, "runs")["runs"]] == ["run-0", "run-1", "run-2", "run-3"]
    found = told(capsys, "runs", "--best", "2")

    assert [run["name"] for run in found["runs"]] == ["run-1", "run-3"]
    mean = np.mean([scores[1], scores[3]], axis=0)
    assert found["ensemble"]["loss"] == pytest.approx(log_loss(TRUE, mean, labels=LABELS))


def test_samples_are_joined_by_their_number_and_what_only_some_have_is_left_out(place, capsys):
    one, other = rows_of(drawn(1)), rows_of(drawn(2))
    runs = [written("a", one[5:]), written("b", other[::-1][5:])]

    found = told(capsys, *runs)

    assert (found["samples"], found["left_out"]) == (N - 10, 10)
    mean = (drawn(1) + drawn(2))[5:-5] / 2
    assert found["ensemble"]["loss"] == pytest.approx(log_loss(TRUE[5:-5], mean, labels=LABELS))


def test_a_run_without_outputs_is_named_and_left_out(place, capsys):
    written("a", rows_of(drawn(1)))
    written("b", rows_of(drawn(2)), split="test")

    assert main(["ensemble", "runs"]) == 0

    assert "b saved no outputs of val: it is left out." in capsys.readouterr().err


def test_logits_become_probabilities_where_that_is_asked_for(place, capsys):
    logits = np.random.default_rng(5).normal(size=(2, N, 3))
    targets = [LABELS.index(one) for one in TRUE]
    numbered = [rows_of(one, targets, labels=range(3)) for one in logits]
    runs = [written(f"run-{number}", rows, labels=None) for number, rows in enumerate(numbered)]

    found = told(capsys, *runs, "--softmax")

    mean = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(0)
    assert found["ensemble"]["loss"] == pytest.approx(log_loss(targets, mean, labels=range(3)))
    assert main(["ensemble", *runs]) == 2
    assert "Of logits, --softmax makes probabilities" in capsys.readouterr().err


def test_several_labels_are_averaged_each_with_the_threshold_of_the_config(place, capsys):
    draw = np.random.default_rng(7)
    scores, true = draw.random((2, N, 3)), draw.random((N, 3)) < 0.5
    targets = [[label for label, there in zip(LABELS, row, strict=True) if there] for row in true]
    rows = [[{**row, "prediction": []} for row in rows_of(one, targets)] for one in scores]
    config = "[task]\nthresholds = { dog = 0.3 }\n"
    runs = [written(f"run-{number}", one, config=config) for number, one in enumerate(rows)]

    found = told(capsys, *runs, "--output", "all.jsonl")

    mean = scores.mean(0)
    predicted = mean >= np.array([0.5, 0.3, 0.5])
    assert found["ensemble"] == pytest.approx(
        {
            "loss": np.mean([log_loss(true[:, at], mean[:, at], labels=[False, True]) for at in range(3)]),
            "subset_accuracy": accuracy_score(true, predicted),
            "f1_micro": f1_score(true, predicted, average="micro"),
            "f1_macro": f1_score(true, predicted, average="macro"),
        }
    )


def test_of_two_labels_the_second_is_predicted_from_the_threshold_on(place, capsys):
    true = ["no" if one == "cat" else "yes" for one in TRUE]
    scores = [drawn(seed, width=2) for seed in (1, 2)]
    config = "[task]\nthresholds = 0.8\n"
    runs = [
        written(f"run-{seed}", rows_of(one, true, ["no", "yes"]), ["no", "yes"], config)
        for seed, one in enumerate(scores)
    ]

    found = told(capsys, *runs)

    predicted = np.where(np.mean(scores, axis=0)[:, 1] >= 0.8, "yes", "no")
    assert found["ensemble"]["accuracy"] == pytest.approx(accuracy_score(true, predicted))


def test_numbers_are_averaged(place, capsys):
    draw = np.random.default_rng(9)
    target, predicted = draw.normal(size=N), draw.normal(size=(3, N))
    runs = [
        written(
            f"run-{number}",
            [{"sample": at, "target": target[at], "prediction": one[at], "scores": None} for at in range(N)],
            labels=None,
        )
        for number, one in enumerate(predicted)
    ]

    found = told(capsys, *runs)

    mean = predicted.mean(0)
    assert found["ensemble"]["mae"] == pytest.approx(mean_absolute_error(target, mean))
    assert found["ensemble"]["loss"] == found["ensemble"]["mse"] == pytest.approx(np.mean((target - mean) ** 2))


PROCESS = """
def backwards(columns):
    return {**columns, "prediction": columns["target"]}

def fewer(columns):
    kept = [n for n, scores in enumerate(columns["scores"]) if max(scores) > 0.7]
    return {name: [values[n] for n in kept] for name, values in columns.items()}

def fails(columns):
    return columns["nothing"]

def uneven(columns):
    return {"a": [1], "b": [1, 2]}

def number(columns):
    return 3

constant = 3
"""


def test_a_function_by_import_path_makes_other_rows_of_them(place, capsys):
    Path("own.py").write_text(PROCESS)
    run = written("a", rows_of(drawn(1)))

    assert told(capsys, run, "--process", "own.py:backwards")["ensemble"]["accuracy"] == 1.0
    found = told(capsys, run, "--process", "own.py:fewer", "--output", "sure.jsonl")

    sure = drawn(1).max(1) > 0.7
    predicted = [LABELS[number] for number in drawn(1).argmax(1)]
    right = [one == two for one, two, kept in zip(predicted, TRUE, sure, strict=True) if kept]
    assert found["ensemble"]["accuracy"] == pytest.approx(np.mean(right))
    assert len(Path("sure.jsonl").read_text().splitlines()) == sure.sum()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own.py:fails", "failed: KeyError: 'nothing'"),
        ("own.py:uneven", "must return columns that are equally long, but returned a 1, b 2"),
        ("own.py:number", "must return a mapping of columns, but returned a int"),
        ("own.py:constant", "must be a function of columns, but is a int"),
        ("own.py:backward", 'did you mean "backwards"?'),
        ("nowhere.py:one", "nowhere.py"),
    ],
)
def test_a_function_that_cannot_be_used_is_told_in_a_sentence(place, capsys, name, says):
    Path("own.py").write_text(PROCESS)
    run = written("a", rows_of(drawn(1)))

    assert main(["ensemble", run, "--process", name, "--output", "a.jsonl"]) == 2

    assert says in capsys.readouterr().err
    assert not Path("a.jsonl").exists()


def translated(count=2):
    return [{"sample": n, "target": "x", "prediction": f"t{n}", "scores": [0.5] * count, "loss": 1.0} for n in range(3)]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (rows_of(drawn(1)), rows_of(drawn(2, width=4), labels="abcd"), "The scores of b are 4 a sample, those of a 3"),
        (rows_of(drawn(1)), rows_of(drawn(2), TRUE[::-1]), "sample 0 has another target in a than in b"),
        (rows_of(drawn(1)), [{**row, "scores": None} for row in rows_of(drawn(2))], "scores of b"),
        (translated(), translated(), "it has predicted 't0', which is none of the 2"),
        ([{**row, "scores": None} for row in translated()],) * 2 + ("predicts texts without probabilities",),
        (rows_of(drawn(1)), [{**row, "sample": f"s{row['sample']}"} for row in rows_of(drawn(2))], "no sample in comm"),
    ],
)
def test_what_cannot_be_averaged_is_refused(place, capsys, first, second, says):
    runs = [written("a", first, labels=None), written("b", second, labels=None)]

    assert main(["ensemble", *runs]) == 2

    assert says in capsys.readouterr().err


def test_runs_with_other_labels_are_refused(place, capsys):
    runs = [written("a", rows_of(drawn(1))), written("b", rows_of(drawn(2)), labels=LABELS[::-1])]

    assert main(["ensemble", *runs]) == 2

    assert "b has other labels than a, or in another order" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("runs", "--best", "0"), 2, "--best must be at least 1"),
        (("runs", "--output", "a.csv"), 2, "--output must end in .parquet or .jsonl"),
        (("runs", "--output", "no/a.jsonl"), 5, "no is not a folder"),
        (("runs", "--split", "test"), 2, "a saved no outputs of test"),
        (("elsewhere",), 5, "elsewhere is not a run folder"),
    ],
)
def test_mistakes_are_told(place, capsys, words, code, says):
    written("a", rows_of(drawn(1)))

    assert main(["ensemble", *words]) == code

    assert says in capsys.readouterr().err


def test_two_seeds_of_a_real_classifier_are_one_ensemble(place, capsys):
    new("classification", place / "loans", data="tabular")
    quick = {"train.max_duration": "1 epoch", "log.tensorboard": False, "log.progress": False, "train.device": "cpu"}
    for seed in (1, 2):
        etude.train(place / "loans/config.toml", {**quick, "run.seed": seed, "run.name": f"s{seed}", "run.dir": "runs"})
    capsys.readouterr()

    found = told(capsys, "runs")

    assert [run["name"] for run in found["runs"]] == ["s1", "s2"]
    for run in found["runs"]:
        manifest = json.loads(Path(run["folder"], "checkpoints/best/manifest.json").read_text())
        assert run["metrics"]["accuracy"] == pytest.approx(manifest["metrics"]["val/accuracy"])
    assert found["ensemble"]["loss"] <= np.mean([run["metrics"]["loss"] for run in found["runs"]]) + 1e-9
