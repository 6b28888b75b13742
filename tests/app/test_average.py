"""`etude average`: the mean of checkpoints, as a folder that everything takes which takes a checkpoint."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from python_face import Line, line, trainer
from safetensors.torch import load_file, save_file
from texts_of_runs import CONFIG, folder, train
from torch.optim.swa_utils import update_bn

import etude
from etude.__main__ import main
from etude.app.average import average
from etude.app.running import build_job
from etude.base.errors import RefusedError, StorageError
from etude.tasks.config import load_config
from etude.train.memory.mean import mean_of


class Counted(Line):
    """Counts its steps in a buffer, and has a weight of two names."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.int64))
        self.again = self.net

    def training_step(self, batch):
        self.steps_seen += 1
        return super().training_step(batch)


@pytest.fixture
def run(tmp_path):
    made = trainer(run_dir=tmp_path / "run", max_duration="4 steps", save_every="1 step", keep_last=4, batch_size=4)
    made.fit(Counted(), line())
    return tmp_path / "run"


def weights(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_the_last_checkpoints_are_averaged_in_float64(run, capsys):
    assert main(["average", str(run), "--last", "3"]) == 0

    said, place = capsys.readouterr().err, run / "averages" / "3-from-00000002-to-00000004"
    found, held = load_file(place / "model.safetensors"), [weights(run, step) for step in (2, 3, 4)]
    floats = [name for name, value in held[0].items() if value.is_floating_point()]
    assert found.keys() == held[0].keys()
    for name in floats:
        wanted = torch.stack([one[name].double() for one in held]).mean(0).float()
        assert torch.equal(found[name], wanted), name
    assert not any(torch.equal(found[name], held[2][name]) for name in floats if "weight" in name)
    assert int(found["steps_seen"]) == int(held[2]["steps_seen"])
    assert "the mean of 3 checkpoints, step-00000002, step-00000003, step-00000004." in said
    assert "As in the last of them, since whole numbers have no mean: steps_seen." in said
    assert f"--checkpoint {place}" in said
    assert len(json.loads((place / "average.json").read_text())["checkpoints"]) == 3


def test_a_task_is_loaded_from_the_mean_and_its_shared_weights_stay_shared(run, tmp_path):
    place, _ = average(run, checkpoints=["2", "4"], output=tmp_path / "mean")

    task = Counted.load(place)

    assert task.again is task.net
    held = [weights(run, step) for step in (2, 4)]
    name = next(name for name in held[0] if name.endswith("weight"))
    torch.testing.assert_close(task.state_dict()[name], (held[0][name] + held[1][name]) / 2)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 2, "Give one of --last N, --best N, --steps FROM:TO, or --checkpoints"),
        (
            ("--last", "9"),
            2,
            "--last asks for 9 checkpoints, but {run} has 4; train.keep_last says how many a run keeps",
        ),
        (("--last", "0"), 2, "--last must be at least 1, but is 0"),
        (("--last", "2", "--checkpoints", "1"), 2, "Give one of --last N, --best N"),
        (("--best", "1"), 2, "--best asks for 1 checkpoints, but of those that {run} has, 0 were validated"),
        (("--steps", "9:"), 2, "--steps 9: has no checkpoint of {run} in it: there are 1, 2, 3, 4."),
        (("--steps", "1-3"), 2, '--steps must be two steps, such as "1000:5000" or "1000:", but is "1-3"'),
        (("--checkpoints", "4", "last"), 2, "names step-00000004 twice (4)"),
        (("--checkpoints", "1", "77"), 5, "has no checkpoint '77'"),
        (("--last", "2", "--output", "{run}"), 2, "is not empty: give a new folder"),
    ],
)
def test_what_cannot_be_averaged_is_a_sentence_and_leaves_nothing(flags, code, said, run, capsys):
    assert main(["average", str(run), *(flag.format(run=run) for flag in flags)]) == code

    assert said.format(run=run) in capsys.readouterr().err
    assert not list(run.glob("averages/*"))


@pytest.mark.parametrize(
    ("span", "steps"), [("2:3", (2, 3)), (":2", (1, 2)), ("3:", (3, 4)), ("1:99", (1, 2, 3, 4)), ("4:4", (4,))]
)
def test_a_span_of_steps_holds_both_its_ends(span, steps, run, tmp_path):
    place, _ = average(run, steps=span, output=tmp_path / "mean")

    listed = json.loads((place / "average.json").read_text())["checkpoints"]
    assert [int(path.rpartition("-")[2]) for path in listed] == list(steps)


def test_the_best_are_those_of_the_best_validations_and_not_the_newest(tmp_path):
    made = trainer(
        run_dir=tmp_path / "run",
        max_duration="8 steps",
        save_every="1 step",
        eval_every="1 step",
        keep_last=8,
        batch_size=4,
        learning_rate={"schedule": "stairs", "values": [0.05, 3.0], "every": "5 steps"},
    )
    result = made.fit(Line(), line(), line(8))

    place, said = average(tmp_path / "run", best=3)

    losses = {row["step"]: row["val/loss"] for row in result.history if "val/loss" in row}
    best = sorted(sorted(losses, key=losses.__getitem__)[:3])
    assert best != sorted(losses)[-3:]
    assert ", ".join(f"step-{step:08d}" for step in best) in said
    wanted = torch.stack([weights(tmp_path / "run", step)["net.0.weight"].double() for step in best]).mean(0)
    assert torch.equal(load_file(place / "model.safetensors")["net.0.weight"], wanted.float())


def test_checkpoints_of_several_runs_of_one_model_have_a_mean(tmp_path):
    for seed in (1, 2):
        made = trainer(run_dir=tmp_path / f"run{seed}", max_duration="2 steps", seed=seed)
        made.fit(Line(), line(seed=seed), line(8))

    place, said = average(tmp_path / "run1", checkpoints=["last", str(tmp_path / "run2" / "last")])

    held = [weights(tmp_path / f"run{seed}", 2)["net.0.weight"].double() for seed in (1, 2)]
    assert torch.equal(load_file(place / "model.safetensors")["net.0.weight"], (sum(held) / 2).float())
    assert f"step-00000002, {tmp_path / 'run2'}" in said


def test_of_a_run_that_keeps_a_moving_average_that_is_averaged_and_said(tmp_path):
    made = trainer(run_dir=tmp_path / "run", max_duration="3 steps", save_every="1 step", keep_last=3, ema_decay=0.5)
    made.fit(Line(), line())

    place, said = average(tmp_path / "run", last=2)

    held = [load_file(tmp_path / "run" / "checkpoints" / f"step-0000000{n}" / "ema.safetensors") for n in (2, 3)]
    wanted = torch.stack([one["net.0.weight"].double() for one in held]).mean(0).float()
    assert torch.equal(load_file(place / "model.safetensors")["net.0.weight"], wanted)
    assert "(of the moving average that each keeps)" in said


NORMED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, vocabulary, width=8):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.out(self.norm(self.table(tokens).transpose(1, 2)).transpose(1, 2))
"""


@pytest.mark.parametrize("most", [None, 3])
def test_statistics_of_batch_normalisation_equal_those_that_torch_computes(most, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "texts", files=4)
    Path("net.py").write_text(NORMED)
    Path("lm.toml").write_text(CONFIG)
    train({"model": {"type": "net.py:Net"}, "train.save_every": "1 step", "train.keep_last": 3})

    command = ["average", "runs/lm", "--allow-code", "--last", "3", "--output"]
    assert main([*command, "stale"]) == 0
    assert "statistics of batch normalisation are means, too" in capsys.readouterr().err
    assert main([*command, "fresh", "--recompute-statistics", *([str(most)] if most else [])]) == 0
    assert "The running statistics of batch normalisation are of" in capsys.readouterr().err

    loaded = load_config("lm.toml", {"model": {"type": "net.py:Net"}, "run.name": "other"})
    loaded.config.folder.mkdir()
    job = build_job(loaded, loaded.config.folder, lambda _: None)
    stale, fresh = (load_file(Path(name, "model.safetensors")) for name in ("stale", "fresh"))
    job.task.load_state_dict(stale)
    batches = [(delivery.batch.inputs,) for delivery in islice(job.train.epoch(0), most)]
    update_bn(batches, job.task.model)
    wanted = job.task.state_dict()
    assert len(batches) > 1
    assert all(torch.equal(fresh[name], stale[name]) for name in fresh if ".norm." not in name)
    assert all(torch.equal(fresh[name], wanted[name]) for name in fresh if ".norm." in name)
    assert not torch.equal(fresh["model.norm.running_mean"], stale["model.norm.running_mean"])


def folder_of(path, **tensors):
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


def test_weights_of_another_model_or_not_finite_are_refused_by_name(tmp_path):
    one = folder_of(tmp_path / "one", w=torch.ones(2), b=torch.ones(1))
    other = folder_of(tmp_path / "other", w=torch.ones(3), c=torch.ones(1))
    broken = folder_of(tmp_path / "broken", w=torch.tensor([1.0, torch.nan]), b=torch.ones(1))

    with pytest.raises(
        RefusedError, match=r"b is missing; c has no place in the model; w has shape \(3,\) instead of \(2,\)"
    ):
        mean_of([one, other])
    with pytest.raises(StorageError, match=r"w in .*broken is not finite"):
        mean_of([one, broken])


def test_a_mean_that_was_damaged_is_named(run, tmp_path):
    place, _ = average(run, last=2, output=tmp_path / "mean")
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)

    with pytest.raises(StorageError, match=r"model\.safetensors is damaged"):
        Counted.load(place)


def test_half_precision_is_summed_in_float64(tmp_path):
    values = [torch.tensor([1.0, 1.0]), torch.tensor([2.0**-8, 1.0]), torch.tensor([2.0**-8, 1.0])]
    folders = [folder_of(tmp_path / str(i), w=value.to(torch.bfloat16)) for i, value in enumerate(values)]

    mean = mean_of(folders).weights["w"]

    assert mean.dtype is torch.bfloat16
    assert torch.equal(mean, (sum(value.double() for value in values) / 3).to(torch.bfloat16))


def test_a_mean_is_evaluated_predicted_with_and_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pairs = "".join(f"{a} {b}\t{b} {a}\n" for a in "uvwx" for b in "uvwx")
    (tmp_path / "train.tsv").write_text("source\ttarget\n" + pairs)
    (tmp_path / "c.toml").write_text(
        '[task]\ntype = "translation"\n[data]\ntrain = "train.tsv"\nval = "train.tsv"\n[tokenizer]\ntype = "word"\n'
        "[model]\nd_model = 8\nheads = 2\nencoder_layers = 1\ndecoder_layers = 1\n[log]\ntensorboard = false\n"
        '[train]\nmax_duration = "4 steps"\nsave_every = "1 step"\nkeep_last = 3\ndevice = "cpu"\n'
    )
    etude.train("c.toml")
    assert main(["average", "runs/c", "--last", "2", "--output", "mean"]) == 0
    capsys.readouterr()

    assert main(["test", "runs/c", "--checkpoint", "mean", "--json"]) == 0
    tested = json.loads(capsys.readouterr().out)

    assert tested["test/loss"] == pytest.approx(etude.Run("runs/c").validate(weights="mean")["val/loss"])
    assert len(etude.Run("runs/c").predict(["u v"], weights="mean")) == 1
    assert main(["export", "runs/c", "out", "--checkpoint", "mean"]) == 0
