"""Saved outputs: a row a sample, of the best weights, however a run was killed; Parquet or JSON lines."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.base.errors import ConfigError
from etude.callbacks import tables
from etude.callbacks.columns import columns_of, interpreted, listed
from etude.callbacks.outputs import SavedOutputs
from etude.train.memory.checkpoint.store import Store

QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "loggers": []}


@pytest.fixture(autouse=True)
def as_json(monkeypatch):
    """The form that needs no further package; what pyarrow writes is read back in tests of its own."""
    monkeypatch.setattr(tables, "is_installed", lambda name: False)


def data(samples, seed=1):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=draw)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


TRAIN, VAL, TEST = data(40), data(10, 2), data(7, 3)


class Classes(etude.Task):
    """Its weights are the number of steps taken, and its validation loss follows a series."""

    def __init__(self, losses=(3.0, 1.0, 2.0)):
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(1))
        self.losses = losses

    def training_step(self, batch):
        return -self.steps.sum() + 0 * batch[0].sum()

    def validation_step(self, batch):
        step = round(self.steps.item())
        loss = torch.tensor(self.losses[min(max(step, 1), len(self.losses)) - 1])
        rows = torch.arange(len(batch[0]), dtype=torch.float32)
        return etude.StepOutput(loss, outputs={"prediction": [f"{step}"] * len(rows), "loss": loss + rows})


def run(folder, task=None, until="3 steps", **options):
    options = {"save_outputs": ["train", "val", "test"], "eval_every": "1 step", "save_every": "1 step"} | options
    trainer = etude.Trainer(
        max_duration=until,
        batch_size=40,
        optimizer="sgd",
        learning_rate=1.0,
        run_dir=folder,
        **QUIET | options,
    )
    task = task or Classes()
    return trainer, trainer.fit(task, TRAIN, VAL, TEST), task


def read(folder, name):
    return [json.loads(line) for line in (folder / "outputs" / f"{name}.jsonl").read_text().splitlines()]


def files(folder):
    return sorted(path.name for path in (folder / "outputs").iterdir())


def test_every_split_has_a_row_for_each_sample_of_the_best_weights(tmp_path):
    trainer, result, task = run(tmp_path)
    trainer.test()

    assert result.best_step == 2
    for split, samples in (("train", 40), ("val", 10), ("test", 7)):
        found = read(tmp_path, split)
        assert [row["sample"] for row in found] == list(range(samples))
        assert {row["prediction"] for row in found} == {"2"}
    assert read(tmp_path, "val")[3] == {
        "sample": 3,
        "target": int(VAL.tensors[1][3]),
        "prediction": "2",
        "scores": None,
        "loss": 4.0,
    }
    assert files(tmp_path) == ["saved.json", "test.jsonl", "train.jsonl", "val.jsonl"]
    assert json.loads((tmp_path / "outputs/saved.json").read_text())["train"] == {"file": "train.jsonl", "step": 2}
    assert round(task.steps.item()) == 3


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], None),
        (["val"], ["saved.json", "val.jsonl"]),
        ("train", ["saved.json", "train.jsonl"]),
        (["test"], ["saved.json", "test.jsonl"]),
    ],
)
def test_only_what_is_asked_for_is_written(asked, found, tmp_path):
    trainer, _, _ = run(tmp_path, save_outputs=asked)
    trainer.test()

    assert (files(tmp_path) if (tmp_path / "outputs").exists() else None) == found


def test_a_file_of_every_validation_is_named_by_its_step(tmp_path):
    run(tmp_path, save_outputs="val", save_outputs_every="validation")

    assert files(tmp_path) == [f"val-step-0000000{step}.jsonl" for step in (1, 2, 3)]
    assert {row["prediction"] for row in read(tmp_path, "val-step-00000003")} == {"3"}


def test_the_last_weights_are_tested_where_they_are_asked_for(tmp_path):
    trainer, _, _ = run(tmp_path)

    trainer.test(weights="last")

    assert {row["prediction"] for row in read(tmp_path, "test")} == {"3"}
    assert json.loads((tmp_path / "outputs/saved.json").read_text())["test"]["step"] == 3


class Killed(BaseException):
    """The process ends here."""


def test_the_file_is_that_of_the_best_checkpoint_though_the_save_of_a_better_one_never_came(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise Killed

    run(tmp_path, Classes((3.0, 1.0)), until="1 step")
    before = read(tmp_path, "val")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", killed)
        with pytest.raises(Killed):
            run(tmp_path, Classes((3.0, 1.0)), until="2 steps")

    assert read(tmp_path, "val") == before
    assert (tmp_path / "checkpoints/best").resolve().name == "step-00000001"
    run(tmp_path, Classes((3.0, 1.0)), until="2 steps")
    assert {row["prediction"] for row in read(tmp_path, "val")} == {"2"}
    assert not [name for name in files(tmp_path) if name.startswith(".")]


def test_the_file_of_a_best_checkpoint_is_shown_by_the_process_after_one_that_was_killed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SavedOutputs, "_settle", lambda self: None)  # as if the process had ended right after the save
        run(tmp_path, until="2 steps", save_outputs="val")
        shown = read(tmp_path, "val")  # written anew at the end, since it was not there
        (tmp_path / "outputs/val.jsonl").unlink()
    hidden = tmp_path / "outputs/.val-step-00000002.jsonl"
    assert hidden.exists()

    run(tmp_path, until="3 steps", save_outputs="val")

    assert read(tmp_path, "val") == shown
    assert not hidden.exists()


def test_a_run_that_asks_for_outputs_only_when_it_is_finished_gets_them(tmp_path):
    run(tmp_path, save_outputs=[])

    _, result, task = run(tmp_path)

    assert "max_duration" in result.reason
    assert {row["prediction"] for row in read(tmp_path, "train") + read(tmp_path, "val")} == {"2"}
    assert round(task.steps.item()) == 3


def test_outputs_change_no_bit_of_the_run(tmp_path):
    def last(folder, **options):
        run(folder, **options)
        return (folder / "checkpoints/last/model.safetensors").read_bytes()

    assert last(tmp_path / "with") == last(tmp_path / "without", save_outputs=[])


def test_a_folder_that_cannot_be_written_is_told_of_and_the_run_goes_on(tmp_path):
    said = []
    (tmp_path / "outputs").write_text("in the way")

    _, result, _ = run(tmp_path, say=said.append)

    assert result.progress.step == 3
    assert any("outputs" in sentence and "training continues" in sentence for sentence in said)


def test_an_exception_leaves_no_part_of_a_file(tmp_path):
    class Breaks(Classes):
        def validation_step(self, batch):
            if len(batch[0]) < 4:
                raise ValueError("broken")
            return super().validation_step(batch)

    with pytest.raises(ValueError, match="broken"):
        run(tmp_path, Breaks(), eval_batch_size=4, sanity_batches=0)

    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run_dir": None}, "train.save_outputs needs a run folder"),
        ({"tbptt_steps": 2}, "train.save_outputs cannot be used with train.tbptt_steps"),
        ({"save_outputs": ["dev"]}, "save_outputs"),
        ({"save_outputs_every": "step"}, "save_outputs_every"),
    ],
)
def test_what_cannot_be_saved_is_refused_when_the_trainer_is_made(options, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        etude.Trainer(**{"run_dir": tmp_path, "save_outputs": "all", **QUIET, **options})


def test_a_plain_module_has_scores_predictions_and_the_loss_of_each_sample(tmp_path):
    torch.manual_seed(1)
    model = nn.Linear(4, 3)
    options = {"max_duration": "1 epoch", "batch_size": 8, "run_dir": tmp_path, "save_outputs": "val", **QUIET}

    result = etude.fit(model, TRAIN, VAL, loss=etude.losses.CrossEntropy(label_smoothing=0.1), **options)

    logits, targets = model(VAL.tensors[0]), VAL.tensors[1]
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    found = read(tmp_path, "val")
    assert [row["target"] for row in found] == targets.tolist()
    assert [row["prediction"] for row in found] == logits.argmax(1).tolist()
    assert torch.allclose(torch.tensor([row["scores"] for row in found]), logits, atol=1e-6)
    assert torch.allclose(torch.tensor([row["loss"] for row in found]), losses, atol=1e-6)
    assert sum(row["loss"] for row in found) / 10 == pytest.approx(result.metrics["val/loss"], rel=1e-5)


CASES = {
    "scores of classes": (torch.tensor([[0.5, 2]]), torch.tensor([0]), {"prediction": [1], "scores": [[0.5, 2.0]]}),
    "one number": (torch.tensor([[0.5]]), torch.tensor([[1.0]]), {"prediction": [0.5]}),
    "several numbers": (torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, 2.0]]), {"prediction": [[0.5, 2.0]]}),
    "classes in time": (torch.tensor([[[0.1, 0.9], [3, 1]]]), torch.tensor([[0, 1]]), {"prediction": [[1, 0]]}),
    "torch's order": (torch.zeros(1, 3, 2), torch.tensor([[0, 1]]), {"prediction": [[0, 0]]}),
    "what was decided": (torch.tensor([7]), None, {"prediction": [7]}),
    "texts": (["seven"], None, {"prediction": ["seven"]}),
    "nothing": (None, None, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_read_by_their_shape_and_the_targets(case):
    outputs, target, expected = CASES[case]

    found = interpreted(outputs, target)

    assert {name: listed(values) for name, values in found.items()} == expected


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"prediction": ["a"]}, "'sample'|holds"),
        ({"prediction": ["a", "b"], "more": torch.ones(3)}, "'more' holds 3 for 2 samples"),
        ("text", "must be a tensor, a list of one thing a sample, or a mapping"),
        (object(), "but are a object"),
    ],
)
def test_outputs_that_are_no_columns_are_refused(outputs, told):
    batch = (torch.ones(2, 4), torch.zeros(2))
    if outputs == {"prediction": ["a"]}:
        outputs = {"sample": [1, 2], "prediction": ["a"]}

    with pytest.raises(ConfigError, match=told):
        columns_of(Classes(), batch, outputs, 0)


def test_a_task_may_write_its_columns_itself():
    class Own(Classes):
        def output_columns(self, batch, outputs):
            return {"sample": ["x", "y"], "length": [1, 2]}

    found = columns_of(Own(), (torch.ones(2, 4), torch.zeros(2)), None, 5)

    assert list(found) == ["sample", "target", "prediction", "scores", "loss", "length"]
    assert found["sample"] == ["x", "y"]


def test_samples_are_counted_through_where_nothing_names_them(tmp_path):
    loader = DataLoader(VAL, batch_size=3)
    options = {"max_duration": "1 step", "run_dir": tmp_path, "save_outputs": "val", **QUIET}

    etude.Trainer(**options).fit(Classes(), TRAIN, loader)

    assert [row["sample"] for row in read(tmp_path, "val")] == list(range(10))


def test_what_is_not_finite_is_null_in_json(tmp_path):
    table = tables.open_table(tmp_path / "part")
    table.add({"loss": [float("nan"), 1.0], "scores": [[float("inf")], [2.0]]})
    table.finish(tmp_path / "rows.jsonl")

    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [
        {"loss": None, "scores": [None]},
        {"loss": 1.0, "scores": [2.0]},
    ]


class TestParquet:
    """What pyarrow reads back, where it is installed."""

    @pytest.fixture(autouse=True)
    def pyarrow(self, monkeypatch):
        monkeypatch.undo()
        return pytest.importorskip("pyarrow.parquet")

    def table(self, folder, *batches):
        table = tables.open_table(folder / "part")
        (folder / "rows.jsonl").write_text("of an earlier run")
        try:
            for batch in batches:
                table.add(batch)
            table.finish(folder / "rows.parquet")
        except ConfigError:
            table.abandon()
            raise

    def test_rows_come_back_in_groups_of_bounded_size(self, pyarrow, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "GROUP", 4)
        batches = [{"sample": [3 * i, 3 * i + 1, 3 * i + 2], "scores": [[0.5, 1.0]] * 3} for i in range(5)]

        self.table(tmp_path, *batches)

        file = pyarrow.ParquetFile(tmp_path / "rows.parquet")
        assert file.num_row_groups == 3
        assert file.read().to_pydict() == {"sample": list(range(15)), "scores": [[0.5, 1.0]] * 15}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet"]

    def test_a_column_that_begins_with_nothing_still_has_its_type(self, pyarrow, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "GROUP", 1)

        self.table(
            tmp_path,
            {"prediction": [None], "loss": [None], "scores": [[]]},
            {"prediction": ["a"], "loss": [0.5], "scores": [[1.0]]},
        )

        assert pyarrow.read_table(tmp_path / "rows.parquet").to_pydict() == {
            "prediction": [None, "a"],
            "loss": [None, 0.5],
            "scores": [[], [1.0]],
        }

    def test_a_column_of_two_types_is_refused_by_name(self, pyarrow, tmp_path):
        with pytest.raises(ConfigError, match="'prediction' of the saved outputs must hold values of one type"):
            self.table(tmp_path, {"prediction": ["a"]}, {"prediction": [1]})

    @pytest.mark.parametrize("later", [{"p": [1.5], "scores": [[1]]}, {"p": [1], "scores": [[1.5]]}])
    def test_a_fraction_after_a_group_of_whole_numbers_is_refused_and_not_cut(
        self, later, pyarrow, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(tables, "GROUP", 1)

        with pytest.raises(ConfigError, match="must hold values of one type"):
            self.table(tmp_path, {"p": [1], "scores": [[1]]}, later)

    def test_whole_groups_leave_no_empty_one(self, pyarrow, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "GROUP", 2)

        self.table(tmp_path, {"p": [1, 2]}, {"p": [3, 4]})

        assert pyarrow.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 2

    def test_a_run_writes_parquet(self, pyarrow, tmp_path):
        trainer, _, _ = run(tmp_path)
        trainer.test()

        assert files(tmp_path) == ["saved.json", "test.parquet", "train.parquet", "val.parquet"]
        assert pyarrow.read_table(tmp_path / "outputs/train.parquet").num_rows == 40


@pytest.mark.parametrize(("rows", "imported"), [(0, False), pytest.param(1, True, marks=pytest.mark.acceptance)])
def test_pyarrow_is_imported_only_to_write(rows, imported, tmp_path):
    pytest.importorskip("pyarrow")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from etude.callbacks.outputs import SavedOutputs\n"
        "from etude.callbacks.tables import ParquetTable, open_table\n"
        "table = open_table(Path('part'))\n"
        "assert isinstance(table, ParquetTable)\n"
        f"table.add({{'p': [1] * {rows}}})\n"
        f"table.finish(Path('rows.parquet')) if {rows} else table.abandon()\n"
        "print('pyarrow' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert found.stdout == f"{imported}\n"


def test_outputs_of_a_test_alone_touch_no_file_at_each_step(tmp_path, monkeypatch):
    settled = []
    settle = SavedOutputs._settle
    monkeypatch.setattr(SavedOutputs, "_settle", lambda self: (settled.append(1), settle(self)))

    run(tmp_path, save_outputs=["test"])

    assert len(settled) == 2  # as the run begins and ends
