"""A task's arguments are kept, and make it again in another process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import etude
from etude.base.errors import ConfigError

TRAINER = {"say": lambda _: None, "progress": False, "device": "cpu"}


class Base(etude.Task):
    def __init__(self, width, depth=2, *, rate=0.5, shape=(1, 2), act=nn.Tanh):
        super().__init__()
        self.inside = dict(self.hparams)
        self.layer = nn.Linear(width, depth)

    def training_step(self, batch):
        return self.layer(batch[0]).square().mean()


class Middle(Base):
    pass


class Leaf(Middle):
    def __init__(self, extra="x", **rest):
        super().__init__(width=rest.pop("width", 3), **rest)
        self.extra = extra


class Rest(etude.Task):
    def __init__(self, first, *sizes, name="n", **options):
        super().__init__()
        self.sizes, self.options, self.first, self.name = sizes, options, first, name
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch):
        return self.layer(batch).mean()


class Wrapping(etude.Task):
    def __init__(self, net, width=3):
        super().__init__()
        self.net = net

    def training_step(self, batch):
        return self.net(batch[0]).square().mean()


def saved(task, folder):
    etude.Trainer(**TRAINER).save(folder, task)
    return folder


def test_arguments_are_kept_by_name_whether_given_by_position_by_keyword_or_not_at_all():
    task = Base(3, rate=0.1)

    assert task.hparams == {"width": 3, "depth": 2, "rate": 0.1, "shape": (1, 2), "act": nn.Tanh}
    assert task.hparams["width"] == task.hparams.width == 3
    assert task.inside == task.hparams


def test_a_subclass_of_a_subclass_keeps_its_own_arguments(tmp_path):
    assert Middle(4).hparams["width"] == 4
    task = Leaf("y", width=5, depth=1)

    again = Leaf.load(saved(task, tmp_path))

    assert task.hparams == {"extra": "y", "width": 5, "depth": 1}
    assert again.hparams == task.hparams
    assert torch.equal(again.layer.weight, task.layer.weight)


def test_rest_arguments_come_back_as_they_were(tmp_path):
    for task in (Rest(1, 2, 3, name="m", colour="red"), Rest(7), Rest(7, colour="blue")):
        again = Rest.load(saved(task, tmp_path))

        assert (again.first, again.sizes, again.name, again.options) == (
            task.first,
            task.sizes,
            task.name,
            task.options,
        )


def test_tuples_nests_and_defaults_that_are_no_data_come_back_too(tmp_path):
    task = Base(3, shape=(4, [5, (6,)]))

    again = Base.load(saved(task, tmp_path))

    assert again.hparams == task.hparams


def test_a_constructor_that_changes_what_it_got_does_not_change_the_record():
    class Taking(etude.Task):
        def __init__(self, options):
            super().__init__()
            options.pop("a")

        def training_step(self, batch):
            return batch

    assert Taking({"a": 1}).hparams == {"options": {"a": 1}}


def test_arguments_that_are_no_data_are_passed_again_and_asked_for_by_name(tmp_path):
    task = Wrapping(nn.Linear(3, 1), width=7)
    folder = saved(task, tmp_path)

    again = Wrapping.load(folder, net=nn.Linear(3, 1))

    assert again.hparams["width"] == 7
    assert torch.equal(again.net.weight, task.net.weight)
    with pytest.raises(ConfigError, match="needs net passed again"):
        Wrapping.load(folder)


def test_a_fresh_process_loads_a_checkpoint_and_measures_the_same(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        """
import sys
import torch
from torch import nn
from torch.utils.data import TensorDataset
import etude

class Own(etude.Task):
    def __init__(self, width, *, bias=True):
        super().__init__()
        self.layer = nn.Linear(width, 1, bias=bias)

    def training_step(self, batch):
        return (self.layer(batch[0]) - batch[1]).square().mean()

data = TensorDataset(torch.linspace(-1, 1, 24).view(8, 3), torch.ones(8, 1))
options = dict(device="cpu", say=lambda _: None, progress=False, eval_batch_size=3)

if __name__ == "__main__":
    task = Own.load(sys.argv[1], device="cpu")
    assert task.hparams == {"width": 3, "bias": False}, task.hparams
    print(etude.Trainer(**options).test(task, data)["test/loss"])
"""
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import own
    finally:
        sys.path.remove(str(tmp_path))
    options = {**own.options, "batch_size": 4, "max_duration": "3 epochs", "ema_decay": 0.9}
    trainer = etude.Trainer(run_dir=tmp_path / "run", loggers=[], **options)
    result = trainer.fit(own.Own(3, bias=False), own.data, own.data)
    expected = trainer.test(data=own.data)["test/loss"]

    done = subprocess.run([sys.executable, str(script), str(result.best)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == expected
    assert Path(result.best).is_dir()


def test_a_run_folder_stands_for_its_best_weights_and_a_class_that_is_no_task_of_its_own_is_refused(tmp_path):
    class Fitting(etude.Task):
        def __init__(self, width=2):
            super().__init__()
            self.layer = nn.Linear(width, 1)

        def training_step(self, batch):
            return self.layer(batch).square().mean()

        def validation_step(self, batch):
            return -self.training_step(batch) * 1.0  # grows worse: the first validation is the best

    data = [torch.ones(4, 2), torch.ones(4, 2) * 2]
    result = etude.Trainer(
        run_dir=tmp_path, max_duration="3 epochs", loggers=[], device="cpu", progress=False, say=lambda _: None
    ).fit(Fitting(), data, data)

    again = Fitting.load(tmp_path)

    assert result.best != result.last
    assert torch.equal(again.layer.weight, Fitting.load(result.best).layer.weight)
    assert not torch.equal(again.layer.weight, Fitting.load(result.last).layer.weight)
    with pytest.raises(ConfigError, match=r"call load of its own class, which was .*Fitting"):
        etude.Task.load(tmp_path)


def test_arguments_and_devices_that_do_not_fit_are_told_of_in_a_sentence(tmp_path):
    etude.Trainer(**TRAINER).save(tmp_path, Base(3))

    with pytest.raises(ConfigError, match=r"Base cannot be made .* unexpected keyword argument 'breadth'"):
        Base.load(tmp_path, breadth=3)
    with pytest.raises(ConfigError, match=r"Other cannot be made .* was .*:Base"):
        Other.load(tmp_path)
    with pytest.raises(ConfigError, match="device is 'xpu', but this machine has no such device"):
        Base.load(tmp_path, device="xpu")


class Other(etude.Task):
    def training_step(self, batch):
        return batch
