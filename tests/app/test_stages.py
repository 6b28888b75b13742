"""Stages: one takes what another left; interrupted anywhere they end in the same bits; at their end they do nothing."""

import json
from dataclasses import dataclass
from itertools import count

import pytest
from forks import KilledError, about, bits, files, killed, parent, quiet, rows, written

from etude.app.cli.fork import bring
from etude.app.fork import about as abouts
from etude.app.fork.plan import plan_fork
from etude.app.fork.start import make
from etude.app.running import build_job
from etude.app.stages.own import own
from etude.app.stages.share import Share
from etude.app.stages.stage import Artifact, hashed, run_stage, run_stages
from etude.app.stages.table import KINDS, kind_of, stages_of
from etude.app.stages.train import Train
from etude.base.errors import ConfigError
from etude.base.files import write_json
from etude.tasks.config import load_config
from etude.train.run import Run

PAIRS = 30


@dataclass(frozen=True)
class Numbers:
    """A stage of one's own: writes pairs of numbers, one after the other, and goes on where it was stopped."""

    name: str = "numbers"
    pairs: int = PAIRS

    def inputs(self):
        return ()

    def identity(self, inputs):
        return hashed("numbers", {"pairs": self.pairs}, inputs)

    def run(self, folder, inputs, say):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "numbers.json"
        found = json.loads(path.read_text()) if path.exists() else []
        while len(found) < self.pairs:
            found.append(self.pair(len(found)))
            write_json(path, found)
        return Artifact(self.name, path, self.identity(inputs))

    @staticmethod
    def pair(number):
        return f"{number} {number + 1}\t{number + 1} {number}\n"


def take(folder, path, say):
    """Train on the numbers: the data of the config below."""
    pairs = "".join(json.loads(path.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.tsv").write_text(f"source\ttarget\n{pairs}")


def pipeline(home):
    """Numbers, and a training on them; each has a folder of its own."""
    loaded = written(home, **{"data.train": str(home / "runs" / "parent" / "pairs.tsv")})
    training = Train("parent", loaded, build_job, begins={"numbers": take})

    def where(name):
        return home / "runs" / name

    return [Numbers(), training], where


def ran(home):
    home.mkdir(exist_ok=True)
    stages, where = pipeline(home)
    run_stages(stages, where, quiet)
    return where("parent")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize(("place", "name", "nth"), [(Numbers, "pair", 7), (Run, "step", 1), (Run, "step", 8)])
def test_stages_that_were_killed_go_on_to_the_same_bits(place, name, nth, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        if place is Numbers:
            patch.setattr(Numbers, "pair", staticmethod(_killed_at(nth)))
        else:
            killed(patch, place, name, nth)
        with pytest.raises(KilledError):
            ran(tmp_path)
    made = ran(tmp_path)

    assert rows(made) == rows(unbroken)
    assert bits(made) == bits(unbroken)


def _killed_at(nth):
    calls, real = count(1), Numbers.pair

    def pair(number):
        if next(calls) == nth:
            raise KilledError
        return real(number)

    return pair


def test_stages_that_are_done_do_nothing_again(tmp_path, monkeypatch):
    made = ran(tmp_path)
    before = files(made / "checkpoints"), rows(made)
    killed(monkeypatch, Run, "step", 1)
    monkeypatch.setattr(Numbers, "pair", staticmethod(_killed_at(1)))

    ran(tmp_path)

    assert (files(made / "checkpoints"), rows(made)) == before


def test_a_training_without_stages_before_it_is_all_of_a_plain_config(tmp_path):
    loaded = written(tmp_path)

    earlier, training = stages_of(loaded, loaded.config.folder, build_job)

    assert earlier == []
    assert training == Train("train", loaded, build_job)
    assert training.inputs() == ()


# -- a fork --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return parent(tmp_path_factory.mktemp("parent"))


def forked(trunk, home, at="9 steps", change="--optimizer.learning_rate=0.002"):
    plan = plan_fork(trunk, at, [f"--run.dir={home}", change])
    make(plan, quiet)
    loaded = load_config(plan.folder / "config.toml")
    return loaded, plan.folder, *stages_of(loaded, plan.folder, build_job)


def test_a_fork_is_share_and_then_train(trunk, tmp_path):
    loaded, folder, earlier, training = forked(trunk, tmp_path)

    assert earlier == [Share("share", loaded, build_job)]
    assert training.inputs() == ("share",)
    shared = run_stages(earlier, lambda _: folder, quiet)["share"]
    assert shared.path.name == "step-00000009"
    assert run_stage(training, folder, {"share": shared}, quiet).result.progress.step == 18
    assert about(folder)["step"] == 9


def test_the_stages_of_a_fork_that_is_done_do_nothing_again(trunk, tmp_path, monkeypatch):
    _, folder, earlier, training = forked(trunk, tmp_path)
    first = run_stage(training, folder, run_stages(earlier, lambda _: folder, quiet), quiet)
    before = files(folder / "checkpoints"), rows(folder), about(folder)
    killed(monkeypatch, Run, "step", 1)

    again = run_stage(training, folder, run_stages(earlier, lambda _: folder, quiet), quiet)

    assert (files(folder / "checkpoints"), rows(folder), about(folder)) == before
    assert again.identity == first.identity


def test_whether_shared_steps_were_repeated_is_kept_when_a_kill_comes_before_the_fork_leaves(trunk, tmp_path):
    loaded, folder, earlier, _ = forked(trunk, tmp_path)

    run_stages(earlier, lambda _: folder, quiet)
    kept = about(folder)["repeated"]
    bring(loaded, folder, is_new=False, tell=quiet)

    assert kept is about(folder)["repeated"] is True
    assert abouts.read_about(folder).moment.amount == 9


# -- identity ------------------------------------------------------------------------------------------------------


def identity(home, inputs=(), **flags):
    loaded = written(home, **flags)
    return Train("train", loaded, build_job).identity({one.stage: one for one in inputs})


def test_keys_that_change_no_number_are_no_part_of_an_identity(tmp_path):
    plain = identity(tmp_path)

    assert identity(tmp_path, **{"train.keep_last": 5, "log.progress": True, "run.name": "other"}) == plain
    assert identity(tmp_path, **{"optimizer.learning_rate": 0.02}) != plain
    assert identity(tmp_path, **{"train.monitor": "val/perplexity"}) != plain


def test_the_identity_of_what_a_stage_takes_is_a_part_of_its_own(tmp_path):
    inputs = [Artifact("share", tmp_path, one) for one in ("a", "b")]

    assert identity(tmp_path, inputs[:1]) != identity(tmp_path, inputs[1:])
    assert identity(tmp_path, inputs[:1]) == identity(tmp_path, [Artifact("share", tmp_path / "elsewhere", "a")])


def test_what_a_fork_shares_is_known_by_its_moment_and_not_by_its_changes(trunk, tmp_path):
    found = [
        forked(trunk, tmp_path / str(number), at, change)[2][0].identity({})
        for number, (at, change) in enumerate(
            [
                ("9 steps", "--optimizer.learning_rate=0.002"),
                ("9 steps", "--optimizer.learning_rate=0.003"),
                ("5 steps", "--optimizer.learning_rate=0.002"),
            ]
        )
    ]

    assert found[0] == found[1] != found[2]


# -- the table -----------------------------------------------------------------------------------------------------


def test_kinds_are_found_by_name_and_by_import_path():
    assert set(KINDS) == {"train", "align", "average", "evaluate"}
    assert all(kind_of(name) is kind for name, kind in KINDS.items())
    assert kind_of("stages.py:make") is own


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trian", 'stage.do is "trian"; did you mean "train"?'),
        ("zzz", 'stage.do is "zzz"; it must be "train", "align", "average", "evaluate" or an import path.'),
    ],
)
def test_a_kind_that_there_is_not_is_refused(name, said):
    with pytest.raises(ConfigError) as refused:
        kind_of(name)

    assert str(refused.value) == said
