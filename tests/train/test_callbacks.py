"""Callbacks: every event in its order, what it gets, who may listen, and that watching changes nothing."""

import random

import numpy as np
import pytest
import torch
from small_runs import Regression, loaders, rows, trainer, weights
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import etude
from etude.base.errors import ConfigError
from etude.train.watch.callback import EVENTS, GIVEN
from etude.train.watch.events import Events

QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False}


def data(samples=12):
    draw = torch.Generator().manual_seed(3)
    inputs = torch.randn(samples, 4, generator=draw)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


class Small(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Linear(4, 1)

    def training_step(self, batch):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch):
        return etude.StepOutput(self.training_step(batch), outputs=self.net(batch[0]))

    def predict_step(self, batch):
        return self.net(batch[0])


def listener(act=lambda event, run, about: None, events=EVENTS):
    """An object that calls `act` at every event."""

    def method(event):
        return lambda self, run, *about: act(event, run, about)

    return type("Listener", (), {f"on_{event}": method(event) for event in events})()


def fit(*callbacks, task=None, train=None, val=None, **options):
    options = {"max_duration": "2 epochs", "batch_size": 4, "sanity_batches": 1, **QUIET, **options}
    run = etude.Trainer(callbacks=list(callbacks), **options)
    return run, run.fit(task or Small(), data() if train is None else train, data(4) if val is None else val)


BATCH = ["batch_start", "before_backward", "batch_end"]
EPOCH = [
    "epoch_start",
    *["step_start", *BATCH, *BATCH, "after_backward", "before_step", "step_end"],
    *["step_start", *BATCH, "after_backward", "before_step", "step_end"],
    *["loader_exhausted", "epoch_end"],
    *["validation_start", "validation_batch_start", "validation_batch_end", "validation_end"],
    "save",
]


def test_a_run_tells_every_event_in_its_order(tmp_path):
    heard = []
    callback = listener(lambda event, run, about: heard.append(event))

    run, _ = fit(callback, accumulate=2, run_dir=tmp_path)

    assert heard == ["fit_start", *EPOCH, *EPOCH, "stop", "fit_end"]
    heard.clear()
    run.test(data=data(4))
    run.predict(Small(), data(4))
    assert heard == [
        *["test_start", "test_batch_start", "test_batch_end", "test_end"],
        *["predict_start", "predict_batch_start", "predict_batch_end", "predict_end"],
    ]


def test_a_run_that_goes_on_tells_first_what_it_loaded(tmp_path):
    heard = []
    fit(run_dir=tmp_path, max_duration="1 epoch")

    fit(listener(lambda event, run, about: heard.append((event, *about[:1]))), run_dir=tmp_path)

    assert heard[0] == ("load", tmp_path / "checkpoints" / "step-00000003")
    assert [event for event, *_ in heard[1:4]] == ["fit_start", "epoch_start", "step_start"]


def test_events_hand_over_what_the_protocol_names(tmp_path):
    given = {}
    callback = listener(lambda event, run, about: given.setdefault(event, (run, *about)))

    run, result = fit(callback, run_dir=tmp_path)
    run.test(data=data(4))

    assert all(len(about) == len(GIVEN[event]) for event, about in given.items())
    assert given["validation_batch_end"][2].shape == given["test_batch_end"][2].shape == (4, 1)
    assert given["validation_end"][1].keys() >= {"val/loss"}
    assert given["save"][1] == tmp_path / "checkpoints" / "step-00000003"
    assert given["fit_end"][1] == result.reason
    assert given["before_step"][1].param_groups
    assert given["step_end"][1].finite


def test_the_view_tells_of_the_run_and_cannot_be_changed():
    train, views = data(), []

    def look(event, run, about):
        views.append(run)
        for change in (lambda: setattr(run, "task", None), lambda: run.config["train"].update(x=1)):
            with pytest.raises((AttributeError, TypeError)):
                change()

    task = Small()
    fit(listener(look, ["epoch_end", "fit_end"]), task=task, train=train)

    assert [view.progress.step for view in views] == [3, 6, 6]
    assert views[0].task is task
    assert views[0].data["train"] is train
    assert views[0].config["train"]["batch_size"] == 4
    assert views[-1].metrics["val/loss"] > 0
    assert views[-1].best_step == 6


def test_a_method_gets_as_many_arguments_as_it_takes():
    heard = []

    class Few:
        def on_fit_start(self):
            heard.append(())

        def on_validation_batch_end(self, run, batch):
            heard.append((run.progress.step, len(batch[0])))

        def on_fit_end(self, *about):
            heard.append(len(about))

    fit(Few(), max_duration="3 steps")

    assert heard == [(), (3, 4), 2]


class Misspelt:
    def on_epok_end(self, run):
        pass


class Needs:
    def on_epoch_end(self, run, loss):
        pass


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (Misspelt(), "Misspelt.on_epok_end is not an event; did you mean on_epoch_end?"),
        (Needs(), "Needs.on_epoch_end needs loss, which the event does not give; it gives run."),
        (Needs, "must hold objects, but there is the class Needs"),
        ("package:Class", "must hold objects with on_... methods, but there is 'package:Class'"),
        (None, "but there is None"),
    ],
)
def test_what_is_no_callback_is_refused_when_the_trainer_is_made(callback, told):
    with pytest.raises(ConfigError) as error:
        etude.Trainer(callbacks=[callback], **QUIET)

    assert told in str(error.value)


def test_a_misspelt_event_of_a_subclass_is_refused_with_its_class():
    with pytest.raises(ConfigError, match="did you mean on_step_end"):
        type("Wrong", (etude.Callback,), {"on_steps_end": lambda self, run: None})


class Told:
    """A part that notes which events it heard."""

    def on_fit_start(self):
        vars(self).setdefault("heard", []).append("fit_start")

    def on_epoch_end(self):
        vars(self).setdefault("heard", []).append("epoch_end")


class HearingNet(Told, nn.Linear):
    pass


class HearingLoss(Told):
    def __call__(self, logits, targets):
        return (logits - targets).square().mean()


class HearingData(Told, Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.ones(4) * index, torch.ones(1)


class HearingOptimizer(Told, torch.optim.SGD):
    pass


class HearingSchedule(Told, torch.optim.lr_scheduler.StepLR):
    pass


class HearingRate(Told):
    def __call__(self, progress):
        return 0.1


class HearingSink(Told):
    def log(self, row):
        pass


class HearingTask(Told, Small):
    def __init__(self):
        super().__init__()
        self.net, self.loss = HearingNet(4, 1), HearingLoss()
        self.optimizer = HearingOptimizer(self.net.parameters(), 0.1)
        self.schedule = HearingSchedule(self.optimizer, 1)

    def training_step(self, batch):
        return self.loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.optimizer, self.schedule


def test_every_component_of_a_run_may_listen():
    task, train, sink, rate = HearingTask(), HearingData(), HearingSink(), HearingRate()

    fit(task=task, train=DataLoader(train, batch_size=2), max_duration="1 epoch", loggers=[sink], batch_size=None)
    etude.Trainer(learning_rate=rate, max_duration="1 epoch", **QUIET).fit(Small(), data())

    for part in (task, task.net, task.loss, task.optimizer, task.schedule, train, sink, rate):
        assert part.heard == ["fit_start", "epoch_end"], type(part)


def test_an_object_that_is_reached_twice_is_told_once():
    heard = []

    class Both:
        def log(self, row):
            pass

        def on_fit_start(self):
            heard.append(1)

    both = Both()
    fit(both, both, loggers=[both], max_duration="1 step")

    assert heard == [1]


def test_a_misspelt_event_of_a_component_is_a_sentence_of_the_run_and_other_names_are_its_own():
    said = []

    Events((), [Misspelt()], say=said.append)

    assert len(said) == 1
    assert "did you mean on_epoch_end" in said[0]
    own = type("Own", (), {"on_premises": lambda self: None, "on_click": lambda self, place: None})
    Events((), [own(), nn.Linear(1, 1), torch.optim.SGD([torch.ones(1, requires_grad=True)])], say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_progress_tells_the_batch_within_the_epoch(accumulate):
    class Watch(etude.Callback):
        def __init__(self):
            self.seen = []

        def on_step_end(self, run, outcome):
            self.seen.append((run.progress.batch, run.progress.batch_in_epoch))

    watch = Watch()
    fit(watch, accumulate=accumulate, max_duration="2 epochs")

    whole = watch.seen[len(watch.seen) // 2 - 1][0]
    assert watch.seen[-1][0] == 2 * whole
    assert [within for _, within in watch.seen] == [batch % whole for batch, _ in watch.seen]


def test_a_component_whose_method_only_has_the_name_of_an_event_is_not_called():
    class Disk:
        def on_save(self, run, path, mode):
            raise AssertionError

    said = []

    Events((), [Disk()], say=said.append).save(None)

    assert "needs mode" in said[0]


def test_an_event_that_nobody_listens_to_costs_a_call_of_nothing():
    events = Events([etude.Callback()], [nn.Linear(1, 1)])

    assert len({getattr(events, event) for event in EVENTS}) == 1


def test_a_callback_that_raises_ends_the_run_and_the_others_are_told():
    told = []

    class Breaks:
        def on_step_end(self, run):
            if run.progress.step == 2:
                raise ValueError("broken")

        def on_exception(self, run, error):
            told.append("the one that raised it")

    class Also:
        def on_exception(self, run, error):
            told.append(str(error))
            raise RuntimeError("once more")

    class Last:
        def on_exception(self, run, error):
            told.append(run.progress.step)

    with pytest.raises(ValueError, match="broken") as error:
        fit(Breaks(), Also(), Last())

    assert told == ["broken", 2]
    assert error.value.__notes__ == ["Also.on_exception failed too: once more"]


@pytest.mark.parametrize("event", ["step_end", "epoch_end", "validation_end", "batch_start", "save"])
def test_any_event_may_stop_the_run(event):
    callback = listener(lambda event, run, about: etude.Stop("enough"), [event])

    _, result = fit(callback, eval_every="1 step", save_every="1 step")

    assert result.reason == "enough"
    assert result.progress.step < 6


def test_a_stop_that_waits_for_the_minimum_survives_a_restart(tmp_path):
    def ask(event, run, about):
        return etude.Stop("enough") if run.progress.step == 1 else None

    callback = listener(ask, ["step_end"])
    options = {"run_dir": tmp_path, "save_every": "1 step", "min_duration": "4 steps"}
    fit(callback, max_duration="2 steps", **options)

    _, result = fit(callback, max_duration="6 steps", **options)

    assert (result.reason, result.progress.step) == ("max_duration reached: 6 steps", 6)

    class Killed(BaseException):
        pass

    def kill(event, run, about):
        if run.progress.step == 3:
            raise Killed

    options["run_dir"] = tmp_path / "killed"
    with pytest.raises(Killed):
        fit(callback, listener(kill, ["step_end"]), **options)
    _, result = fit(callback, **options)
    assert (result.reason, result.progress.step) == ("enough", 4)


class Counts(etude.Callback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, run, outcome):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def test_states_of_callbacks_go_on_also_where_others_stand_between(tmp_path):
    fit(Counts(), Counts(), run_dir=tmp_path, max_duration="1 epoch")
    first, second = Counts(), Counts()

    fit(listener(), first, listener(), second, run_dir=tmp_path)

    assert first.steps == second.steps == 6


def draw(event, run, about):
    random.random()
    np.random.rand()  # noqa: NPY002
    torch.rand(1)


class Noisy(Regression):
    """Draws from every generator itself."""

    def training_step(self, batch):
        loss = super().training_step(batch)
        noise = random.random() + abs(np.random.normal())  # noqa: NPY002 - of a pair, whose second waits
        return etude.Loss(loss.sum * (1 + noise), loss.count)


def bits(folder, *callbacks, **options):
    options = {"save_every": "1 epoch", "loggers": [], "progress": False, **options}
    run = trainer(folder, max_duration="2 epochs", callbacks=list(callbacks), **options)
    run.fit(Noisy(), *loaders())
    return weights(folder)["model.safetensors"], rows(folder)


@pytest.fixture(scope="module")
def alone(quick_folder):
    """The bits and rows of a run that nobody watches."""
    return bits(quick_folder / "alone")


def test_what_a_callback_draws_changes_nothing_in_training(alone, tmp_path):
    assert bits(tmp_path, listener(draw)) == alone


@pytest.mark.parametrize(
    "options",
    [{"eval_every": "1 step"}, {"log_every": "4 steps"}, {"save_every": "5 steps"}, {"sanity_batches": 0}],
    ids=str,
)
def test_how_often_is_validated_logged_and_saved_changes_no_weight(options, alone, tmp_path):
    assert bits(tmp_path, **options)[0] == alone[0]


def test_a_logger_that_draws_changes_nothing_in_training(alone, tmp_path):
    class Drawing:
        def log(self, row):
            draw("log", None, ())

    assert bits(tmp_path, loggers=[Drawing()]) == alone


def test_what_callbacks_draw_is_theirs_new_at_each_step_and_the_same_in_a_run_that_goes_on(tmp_path):
    def drawing(found):
        def draw(event, run, about):
            drawn = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
            found.append((run.progress.step, *drawn))

        return listener(draw, ["step_end"])

    straight, parts = [], []
    fit(drawing(straight))
    for until in ("2 steps", "2 epochs"):
        fit(drawing(parts), max_duration=until, run_dir=tmp_path)

    assert parts == straight
    assert len({row[1:] for row in straight}) == 6
