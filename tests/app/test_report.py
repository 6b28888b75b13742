"""`etude report`: one page that needs nothing else, of a run, of several, of a sweep; hostile text stays text."""

import base64
import hashlib
import http.client
import itertools
import json
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

import etude
from etude.__main__ import main
from etude.app.new.project import new
from etude.app.report.gather import folders, gather
from etude.app.report.outputs import samples_of
from etude.app.report.page import LARGEST, report
from etude.app.report.series import Curve, curves, thinned, where_time_went
from etude.app.report.trials import importances, ranked, sweep
from etude.app.report.watch import Watch
from etude.base.errors import ConfigError, StorageError

pytest.importorskip("bokeh", reason="bokeh is not installed")

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028"
TINY = {
    "train.max_duration": "2 epochs",
    "train.eval_every": "1 epoch",
    "train.log_every": "2 steps",
    "train.device": "cpu",
    "log.tensorboard": False,
    "log.progress": False,
}


class Page(HTMLParser):
    """What a page holds, as a browser parses it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.texts, self._open = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs))

    def handle_data(self, data):
        if self._open and self._open[0] == "script":
            self.scripts.append((self._open[1], data))
        else:
            self.texts.append(data)

    def handle_endtag(self, tag):
        self._open = None

    @property
    def data(self):
        return json.loads(next(text for given, text in self.scripts if given.get("id") == "data"))

    def of(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four runs of a grid, each of two epochs."""
    place = tmp_path_factory.mktemp("grid")
    new("classification", place / "loans", data="tabular")
    config = place / "loans" / "config.toml"
    for rate, width in itertools.product((0.001, 0.01), (4, 8)):
        own = {"optimizer.learning_rate": rate, "model.hidden": [width], "run.name": f"{rate}-{width}"}
        etude.train(config, {**TINY, **own, "run.dir": str(place / "runs")})
    return place / "runs"


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained / "0.01-8", tmp_path / "run", symlinks=True))


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_page_of_a_run_needs_nothing_from_elsewhere(run):
    text = report([run])
    page = Page(text)

    assert len(text.encode()) < LARGEST
    assert not [attributes for _, attributes in page.elements if attributes.get("src", "").startswith(("http", "//"))]
    assert not page.of("link")
    assert not page.of("iframe")
    policy = next(given["content"] for given in page.of("meta") if given.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_the_policy_allows_exactly_the_scripts_of_the_page(run):
    page = Page(report([run]))

    policy = next(given["content"] for given in page.of("meta") if given.get("http-equiv"))
    own = [text for given, text in page.scripts if "type" not in given]
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in own}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    assert len(own) == 3
    assert "unsafe-eval" not in policy


def test_the_curves_are_the_rows_of_the_run(run):
    found = Page(report([run])).data["runs"][0]

    rows = rows_of(run)
    for key in ("train/loss", "val/accuracy", "train/learning_rate"):
        expected = [(row["step"], row["epoch"], row["tokens"], row[key]) for row in rows if key in row]
        series, axes = found["series"][key], found["axes"]
        drawn = [
            (axes["step"][at], axes["epoch"][at], axes["tokens"][at], y)
            for at, y in zip(series["at"], series["y"], strict=True)
        ]
        assert np.allclose(drawn, expected, rtol=1e-6)


def test_scheduled_values_losses_and_pace_are_in_sections_of_their_own(run):
    charts = {chart["title"]: chart["section"] for chart in Page(report([run])).data["charts"]}

    assert charts["loss"] == charts["accuracy"] == charts["grad_norm"] == "curves"
    assert charts["learning_rate"] == "schedules"
    assert charts["samples_per_second"] == "pace"


def test_hostile_text_of_a_run_stays_text(run, tmp_path):
    (run / "outputs").mkdir(exist_ok=True)
    for path in (run / "outputs").iterdir():
        path.unlink()
    (run / "outputs/val.jsonl").write_text(json.dumps({"sample": 0, "source": HOSTILE, "prediction": HOSTILE}))
    (run / "outputs/test.confusion.tsv").write_text(f"\t{HOSTILE[:30]}\tb\n{HOSTILE[:30]}\t1\t2\nb\t3\t4\n")
    (run / "skipped.jsonl").write_text(json.dumps({"file": HOSTILE, "line": 3, "reason": HOSTILE}) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 40, "epoch": 2.0, "tokens": 1, f"val/{HOSTILE}": 1.0}) + "\n")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('"granted"', json.dumps(HOSTILE.replace("\u2028", ""))))
    hostile = run.rename(tmp_path / "<img src=x onerror=alert(3)>")

    page = Page(report([hostile]))

    assert len(page.scripts) == 4
    assert not page.of("img")
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    assert page.texts.count(HOSTILE) == 4  # source, prediction, file, reason
    assert page.data["runs"][0]["name"] == hostile.name
    assert f"val/{HOSTILE}" in page.data["runs"][0]["series"]


def test_a_picture_of_a_run_is_an_image_without_scripts(run):
    (run / "outputs").mkdir(exist_ok=True)
    drawn = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    (run / "outputs/attention.svg").write_bytes(drawn)

    page = Page(report([run]))

    [image] = page.of("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")) == drawn
    assert image["alt"] == "run: outputs/attention.svg"


def test_predictions_stand_beside_references_and_the_worst_are_found(tmp_path):
    rows = [{"sample": n, "target": f"t{n}", "prediction": f"p{n}", "loss": float(n % 7)} for n in range(40)]
    (tmp_path / "val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for ending, text in {"txt": "ein\nzwei\n", "source.txt": "one\ntwo\n", "reference.txt": "eins\nzwei\n"}.items():
        (tmp_path / f"test.{ending}").write_text(text)

    found = samples_of(tmp_path)

    assert found["val"].columns == ["sample", "target", "prediction", "loss"]
    assert found["val"].first[1] == ["1", "t1", "p1", "1"]
    assert [row[0] for row in found["val"].worst[:6]] == ["6", "13", "20", "27", "34", "5"]
    assert found["test"].first == [["0", "one", "eins", "ein"], ["1", "two", "zwei", "zwei"]]


def test_starts_of_a_run_are_told(trained, tmp_path):
    config = tmp_path / "config.toml"
    shutil.copytree(trained.parent / "loans", tmp_path, dirs_exist_ok=True)
    for length in ("4 steps", "8 steps"):
        etude.train(config, {**TINY, "train.max_duration": length, "run.dir": str(tmp_path / "runs")})

    told = gather(tmp_path / "runs" / "config")

    assert [start["step"] for start in told.starts] == [0, 4]


def test_a_grid_is_a_sweep_whose_axes_are_what_differs(trained):
    page = Page(report(folders([trained])))

    told = page.data["sweep"]
    assert sorted(axis["key"] for axis in told["axes"]) == ["model.hidden", "optimizer.learning_rate"]
    rates = next(axis for axis in told["axes"] if axis["key"] == "optimizer.learning_rate")
    assert dict(zip(rates["told"], rates["at"], strict=True)) == {"0.001": 0.0, "0.01": 1.0}
    best = [json.loads((trained / name / "checkpoints/best/manifest.json").read_text()) for name in told["names"]]
    assert told["results"] == [one["metrics"]["val/accuracy"] for one in best]
    assert "optimizer.learning_rate" in page.texts  # the table of what differs


def test_what_a_key_explains_is_as_scipy_has_it():
    rng = np.random.default_rng(0)
    rates, kinds = rng.random(40), rng.integers(0, 3, 40)
    results = (rates + 0.3 * kinds + 0.1 * rng.random(40)).tolist()

    found = importances({"rate": [repr(rate) for rate in rates.tolist()], "kind": [f'"{k}"' for k in kinds]}, results)

    assert found["rate"] == pytest.approx(spearmanr(rates, results).statistic ** 2)
    ranks = rankdata(results)
    between = sum((kinds == k).sum() * (ranks[kinds == k].mean() - ranks.mean()) ** 2 for k in range(3))
    assert found["kind"] == pytest.approx(between / ((ranks - ranks.mean()) ** 2).sum())
    ties = np.array([1.0, 3.0, 1.0, 2.0])
    assert ranked(ties).tolist() == rankdata(ties).tolist()


def test_equal_runs_are_no_sweep(trained):
    run = gather(trained / "0.01-8")

    assert sweep([run, run, run]) is None


def test_a_thinned_curve_keeps_its_ends_and_extremes():
    values = np.random.default_rng(3).normal(size=10_000)

    rows, kept = thinned(Curve(np.arange(10_000), values), 100)

    assert len(rows) <= 102
    assert {0, 9_999, values.argmin(), values.argmax()} <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()
    assert (kept == values[rows]).all()


def test_a_long_run_stays_below_the_largest_page(run):
    rows = (
        {"step": n, "epoch": n / 9, "tokens": n * 7, **{f"val/{k}": 1 / (n + k + 1) for k in range(60)}}
        for n in range(3000)
    )
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert len(report([run]).encode()) < LARGEST


def test_seconds_of_a_run_add_up():
    rows = [
        {"step": 10, "time/step_seconds": 0.1, "time/loader_share": 0.25, "time/seconds": 1.5},
        {"step": 10, "time/validation_seconds": 0.5},
        {"step": 20, "time/step_seconds": 0.2, "time/loader_share": 0.0, "time/seconds": 5.0},
    ]

    spent = where_time_went(rows)

    assert spent == pytest.approx(
        {"steps": 2.75, "waiting for data": 0.25, "validation": 0.5, "saving and the rest": 1.5}
    )


def test_values_that_are_not_finite_are_left_out_of_curves(run):
    told = gather(run)
    told.rows = [{"step": 1, "val/loss": None}, {"step": 2, "val/loss": float("inf")}, {"step": 3, "val/loss": 2.0}]

    assert curves(told, 100)["series"]["val/loss"] == {"at": [0], "y": [2]}


def test_the_shell_writes_the_page_into_the_run(run, capsys):
    assert main(["report", str(run)]) == 0

    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert Page((run / "report.html").read_text()).data["runs"][0]["name"] == "run"
    assert main(["report", str(run), "--output", "page.txt"]) == 2
    assert "must end in .html" in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(StorageError, match="is not a run folder, and holds none"):
        folders([tmp_path])


def test_a_run_without_a_row_has_a_page(run):
    (run / "metrics.jsonl").write_text("")

    assert Page(report([run])).data["charts"] == []


def asked(watch, path, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", watch.server_port, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{watch.server_port}"})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer, content


def test_a_watched_run_is_followed_on_this_machine_alone(run):
    with Watch([run]) as watch:
        threading.Thread(target=watch.serve_forever, daemon=True).start()
        _, page = asked(watch, "/")
        _, before = asked(watch, "/data.json")
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 99, "epoch": 9.0, "tokens": 9, "val/loss": 0.125}) + "\n")
        answer, after = asked(watch, "/data.json")
        foreign, _ = asked(watch, "/data.json", host=f"evil.example:{watch.server_port}")
        missing, _ = asked(watch, "/config.toml")
        watch.shutdown()

    assert "connect-src 'self'" in page
    assert answer.getheader("Cache-Control") == "no-store"
    assert json.loads(before)["runs"][0]["series"]["val/loss"]["y"][-1] != 0.125
    assert json.loads(after)["runs"][0]["series"]["val/loss"]["y"][-1] == 0.125
    assert (foreign.status, missing.status) == (403, 404)
    assert watch.server_address[0] == "127.0.0.1"


def test_a_port_that_there_is_not_is_told_in_a_sentence(run):
    with pytest.raises(ConfigError, match=r"--port 99999 cannot be listened on: .*[^.]\.$"):
        Watch([run], 99999)


def test_runs_of_one_name_are_told_apart(trained, tmp_path):
    for place in ("first", "second"):
        shutil.copytree(trained / "0.01-8", tmp_path / place / "same", symlinks=True)

    page = Page(report(folders([tmp_path])))

    assert [one["name"] for one in page.data["runs"]] == ["first/same", "second/same"]
