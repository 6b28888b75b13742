"""`etude compare`: configs, metrics, seeds and saved outputs side by side, with the values of scipy and sacreBLEU."""

import json

import numpy as np
import pytest
from listed_runs import made
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats

from etude.__main__ import main
from etude.app.results.answers import MEASURES
from etude.metrics.paired_text import paired_scores

SOURCES = ["the red house stands on the hill", "a dog ran over the field", "old cats sleep", "the river is green"] * 5
WORSE = [line.replace("the", "a") for line in SOURCES]
BETTER = [line if at % 5 else line.replace("the", "this") for at, line in enumerate(SOURCES)]


def outputs(run, rows, split="val"):
    place = run / "outputs"
    place.mkdir(exist_ok=True)
    (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "saved.json").write_text(json.dumps({split: {"file": f"{split}.jsonl", "step": 4}}))


def losses(seed, shift=0.0, count=40):
    draw = np.random.default_rng(seed)
    return [
        {
            "sample": at,
            "target": f"t{at}",
            "prediction": None,
            "loss": float(draw.normal(2 + shift, 0.3)),
            "tokens": at + 1,
        }
        for at in range(count)
    ]


def compared(capsys, *words):
    code = main(["compare", *map(str, words), "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def test_configs_and_metrics_stand_side_by_side(tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0, layers=4, logged="false")

    found = compared(capsys, a, b)

    assert found["config"] == {"model.layers": [2, 4]}
    assert found["metrics"]["val/loss"] == [2.5, 2.0]
    assert "cannot be told from one run of each" in found["compared"][0]["verdict"]
    assert 'train.save_outputs = "val"' in found["compared"][0]["note"]


def test_seeds_are_compared_by_welchs_interval(tmp_path, capsys):
    first, second = [2.5, 2.45, 2.52, 2.48], [2.1, 2.2, 2.15]
    for at, loss in enumerate(first):
        made(tmp_path / "small" / f"s{at}", loss, seed=at)
    for at, loss in enumerate(second):
        made(tmp_path / "large" / f"s{at}", loss, seed=at, layers=4)

    found = compared(capsys, tmp_path / "small", tmp_path / "large")["compared"][0]

    expected = stats.ttest_ind(second, first, equal_var=False)
    assert found["over_seeds"]["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found["over_seeds"]["low"], found["over_seeds"]["high"]) == pytest.approx(
        tuple(expected.confidence_interval(0.95)), rel=1e-9
    )
    assert found["verdict"].startswith("By val/loss, large is better than small (p = ")
    assert "4 and 3 seeds" in found["verdict"]


def test_a_run_stands_for_its_seeds_where_that_is_asked_for(tmp_path, capsys):
    for at in (1, 2, 3):
        made(tmp_path / f"small-{at}", 2.5 + at / 100, seed=at)
        made(tmp_path / f"large-{at}", 2.5 + at / 90, seed=at, layers=4)

    found = compared(capsys, tmp_path / "small-1", tmp_path / "large-2", "--group")

    assert [len(group["folders"]) for group in found["runs"]] == [3, 3]
    assert "cannot be told apart" in found["compared"][0]["verdict"]


def test_a_folder_of_several_configs_is_no_group(tmp_path, capsys):
    made(tmp_path / "all" / "a", 2.5)
    made(tmp_path / "all" / "b", 2.5, layers=4)

    assert main(["compare", str(tmp_path / "all"), str(tmp_path / "all" / "a")]) == 2
    assert "holds runs of several configs" in capsys.readouterr().err


def test_saved_losses_are_compared_sample_by_sample_weighed_by_tokens(tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0, layers=4)
    one, other = losses(1), losses(2, shift=-0.5)
    outputs(a, one)
    outputs(b, other[::-1])

    found = compared(capsys, a, b)["compared"][0]

    def mean(rows):
        return np.average([row["loss"] for row in rows], weights=[row["tokens"] for row in rows])

    judged = found["outputs"]["loss"]
    assert (judged["a"], judged["b"]) == pytest.approx((mean(one), mean(other)))
    assert judged["difference"] == pytest.approx(mean(other) - mean(one))
    assert judged["low"] < judged["difference"] < judged["high"] < 0
    assert "b is better than a (p = 0.000999, over 40 samples of val" in found["verdict"]


def test_the_order_of_two_runs_does_not_matter(tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0, layers=4)
    outputs(a, losses(1))
    outputs(b, losses(2, shift=-0.1))

    there, back = (compared(capsys, *pair)["compared"][0]["outputs"]["loss"] for pair in ((a, b), (b, a)))

    assert there["p"] == back["p"]
    assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]))


def test_samples_that_one_alone_has_are_counted(tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0)
    outputs(a, losses(1)[:30])
    outputs(b, losses(2)[10:])

    found = compared(capsys, a, b)["compared"][0]

    assert (found["samples"], found["left_out"]) == (20, 20)


def test_outputs_of_other_data_are_refused(tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0)
    outputs(a, losses(1))
    outputs(b, [{**row, "target": "another"} for row in losses(2)])

    assert main(["compare", str(a), str(b)]) == 2
    assert "sample 0 has another target" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../secret.jsonl", "/etc/passwd", "", None])
def test_no_file_outside_the_outputs_is_read(name, tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0)
    outputs(a, losses(1))
    outputs(b, losses(2))
    (tmp_path / "secret.jsonl").write_text('{"sample": 0}')
    (b / "outputs" / "saved.json").write_text(json.dumps({"val": {"file": name}}))

    assert "b saved no outputs of val" in compared(capsys, a, b)["compared"][0]["note"]


def test_translations_are_compared_by_sacrebleus_own_bootstrap(tmp_path, capsys):
    a, b = made(tmp_path / "a", 2.5), made(tmp_path / "b", 2.0)
    for run, lines in ((a, WORSE), (b, BETTER)):
        outputs(run, [{"sample": at, "target": SOURCES[at], "prediction": line} for at, line in enumerate(lines)])
        manifest = run / "checkpoints" / "best" / "manifest.json"
        manifest.write_text(json.dumps({"step": 4, "metrics": {"val/bleu": 50.0, "val/loss": 2.0}}))

    judged = compared(capsys, a, b)["compared"][0]["outputs"]["bleu"]

    _, scores = PairedTest(
        [("a", WORSE), ("b", BETTER)], {"bleu": BLEU(force=True)}, [SOURCES], test_type="bs", n_samples=1000
    )()
    baseline, system = scores["BLEU"]
    assert (judged["a"], judged["b"], judged["p"]) == (baseline.score, system.score, system.p_value)


def test_chrf_is_sacrebleus_too():
    found = paired_scores("chrf", WORSE, BETTER, SOURCES, resamples=1000)

    assert found.second > found.first
    assert 0 < found.p < 0.05


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "sums"),
    [
        ("wer", "a red house", "the red house", (1, 3)),
        ("cer", "ab", "abc", (1, 3)),
        ("wer", "a", "", (1, 0)),
        ("accuracy", 3, 3, (1.0, 1.0)),
        ("accuracy", "no", "yes", (0.0, 1.0)),
        ("mse", 1.5, 1.0, (0.25, 1.0)),
        ("mae", 1, -1, (2, 1.0)),
        ("mse", None, 1.0, None),
        ("wer", None, "a", None),
        ("accuracy", None, "a", None),
    ],
)
def test_what_a_sample_adds_to_a_metric(metric, prediction, target, sums):
    assert MEASURES[metric]({"prediction": prediction, "target": target}) == sums


@pytest.mark.parametrize("words", [["a"], ["a", "b", "--resamples", "999"], ["a", "./a"]])
def test_what_cannot_be_compared_is_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "a", 2.5)
    made(tmp_path / "b", 2.5)

    assert main(["compare", *words]) == 2


def test_three_runs_are_told_as_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, loss, layers in (("a", 2.5, 2), ("b", 2.0, 4), ("c", 2.2, 6)):
        outputs(made(tmp_path / name, loss, layers=layers), losses(layers, shift=loss - 2))

    assert main(["compare", "a", "b", "c"]) == 0

    told = capsys.readouterr().out.splitlines()
    assert told[0] == "a: a (finished, step 6, best at 4)"
    assert "  model.layers  2  4  6" in told
    assert [line for line in told if line.startswith("  By val/loss, ")] != []
    assert {"b beside a:", "c beside a:"} <= set(told)
