"""`etude average`: the mean of checkpoints, as a folder that everything takes which takes a checkpoint."""

import json

import pytest
import torch
from python_face import Line, line, trainer
from safetensors.torch import load_file, save_file

import etude
from etude.__main__ import main
from etude.app.average import average
from etude.base.errors import RefusedError, StorageError
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
        ((), 2, "Give --last N, or --checkpoints"),
        (
            ("--last", "9"),
            2,
            "--last asks for 9 checkpoints, but {run} has 4; train.keep_last says how many a run keeps",
        ),
        (("--last", "0"), 2, "--last must be at least 1, but is 0"),
        (("--last", "2", "--checkpoints", "1"), 2, "leave one of them out"),
        (("--checkpoints", "4", "last"), 2, "names step-00000004 twice (4)"),
        (("--checkpoints", "1", "77"), 5, "has no checkpoint '77'"),
        (("--last", "2", "--output", "{run}"), 2, "is not empty: give a new folder"),
    ],
)
def test_what_cannot_be_averaged_is_a_sentence_and_leaves_nothing(flags, code, said, run, capsys):
    assert main(["average", str(run), *(flag.format(run=run) for flag in flags)]) == code

    assert said.format(run=run) in capsys.readouterr().err
    assert not list(run.glob("averages/*"))


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
