"""What a task's steps may return, log and ask for."""

import pytest
import torch
from small_runs import dataset
from torch import nn

import etude
from etude.base.errors import ConfigError

DATA = dataset(24)


class Own(etude.Task):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 1)

    def error(self, batch):
        return (self.layer(batch[0]) - batch[1]).square()

    def training_step(self, batch):
        return self.error(batch).mean()


def run(task, *, data=DATA, val=DATA, **options):
    defaults = {"max_duration": "1 epoch", "batch_size": 5, "learning_rate": 0.01, "log_every": "1 step"}
    quiet = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False}
    trainer = etude.Trainer(**{**defaults, **quiet, **options})
    return trainer.fit(task, data, val)


def returning(value):
    class Returning(Own):
        def training_step(self, batch):
            return value(self, batch)

    return Returning()


FORMS = {
    "tensor": lambda task, batch: task.error(batch).mean(),
    "loss": lambda task, batch: etude.Loss(task.error(batch).sum(), len(batch[0])),
    "loss of a tensor count": lambda task, batch: etude.Loss(task.error(batch).sum(), torch.tensor(len(batch[0]))),
    "mean": lambda task, batch: etude.Loss.mean(task.error(batch).mean(), len(batch[0])),
    "mapping": lambda task, batch: {"error": etude.Loss(task.error(batch).sum(), len(batch[0]))},
    "output": lambda task, batch: etude.StepOutput(task.error(batch).mean(), outputs=[1]),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_loss_trains_alike(form, accumulate):
    task, reference = returning(FORMS[form]), Own()

    result = run(task, accumulate=accumulate)
    expected = run(reference, accumulate=accumulate)

    assert torch.allclose(task.layer.weight, reference.layer.weight, atol=1e-6)
    assert result.metrics["val/loss"] == pytest.approx(expected.metrics["val/loss"], rel=1e-5)


def test_every_term_is_logged_under_its_own_name_beside_the_weighted_total():
    def terms(task, batch):
        n = len(batch[0])
        return {
            "fit": etude.Loss(task.error(batch).sum(), n),
            "size": etude.Loss(task.layer.weight.abs().sum() * n, n, weight=0.5),
            "watched": etude.Loss(torch.tensor(7.0 * n), n, weight=0.0),
        }

    row = run(returning(terms)).history[0]

    assert row["train/watched"] == 7.0
    assert row["train/loss"] == pytest.approx(row["train/fit"] + 0.5 * row["train/size"])


def test_a_term_called_loss_is_part_of_the_total_and_a_single_named_one_is_logged_too():
    def terms(task, batch):
        n = len(batch[0])
        return {"loss": etude.Loss(task.error(batch).sum(), n), "one": etude.Loss(task.layer.weight.sum() * 0 + n, n)}

    for row in run(returning(terms)).history:
        prefix = "train" if "train/loss" in row else "val"
        assert row[f"{prefix}/one"] == 1.0
        assert row[f"{prefix}/loss"] > 1.0
    named = run(returning(FORMS["mapping"])).history[0]
    assert named["train/error"] == pytest.approx(named["train/loss"])


def test_validation_weighs_each_term_by_its_counts_never_by_batches():
    task = Own()
    with torch.no_grad():
        expected = float(task.error(DATA.tensors).mean())

    result = run(task, learning_rate=0.0, max_duration="1 step")

    assert result.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)


MISTAKES = {
    "nothing": (lambda task, batch: None, "None; is its return statement missing"),
    "number": (lambda task, batch: task.error(batch).mean().item(), "not its .item()"),
    "text": (lambda task, batch: "loss", "returned str"),
    "vector": (lambda task, batch: task.error(batch)[:, 0], r"scalar loss.*shape \(5,\)"),
    "empty": (lambda task, batch: {}, "empty mapping"),
    "named vector": (lambda task, batch: {"a": task.error(batch)}, r"'a'.*shape \(5, 1\)"),
    "sum of a vector": (lambda task, batch: etude.Loss(task.error(batch), 5), r"sum of the loss.*shape \(5, 1\)"),
    "sum of a number": (lambda task, batch: etude.Loss(1.0, 5), "must be a scalar tensor"),
    "detached": (lambda task, batch: task.error(batch).mean().detach(), "does not depend on any parameter"),
    "weightless": (lambda task, batch: etude.Loss(task.error(batch).sum(), 5, weight=0.0), "weight 0"),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_loss_is_refused_in_a_sentence(mistake, accumulate):
    value, said = MISTAKES[mistake]

    with pytest.raises(ConfigError, match=said):
        run(returning(value), val=None, accumulate=accumulate)


def test_a_task_without_training_step_and_a_method_that_is_missing_are_named():
    class Bare(etude.Task):
        pass

    with pytest.raises(ConfigError, match=r"Bare needs a training_step\(batch\)"):
        run(Bare())
    with pytest.raises(ConfigError, match=r"Own needs a predict_step\(batch\)"):
        etude.Trainer(device="cpu").predict(Own(), DATA)
    with pytest.raises(ConfigError, match=r"needs an etude\.Task"):
        etude.Trainer(device="cpu").fit(nn.Linear(1, 1), DATA)
    with pytest.raises(ConfigError, match="needs training data"):
        etude.Trainer(device="cpu").fit(Own())


def test_a_loss_over_no_targets_contributes_nothing():
    def empty(task, batch):
        return etude.Loss(task.error(batch).sum() * 0, 0)

    for value in (empty, lambda task, batch: etude.Loss(torch.zeros(()), 0)):
        for accumulate in (1, 2):
            task = returning(value)
            before = task.layer.weight.clone()

            result = run(task, val=None, accumulate=accumulate, optimizer="sgd")

            assert torch.equal(task.layer.weight, before)
            assert result.skipped == 0
            assert result.progress.tokens == 0


def test_keywords_are_passed_only_to_methods_that_declare_them():
    given = []

    class Declaring(Own):
        def training_step(self, batch, *, hiddens, optimizer, progress):
            given.append((hiddens, optimizer, progress.step if self.training else None))
            return self.error(batch).mean()

        def optimizer_step(self, optimizer, closure):
            optimizer.step(closure)

    run(Declaring(), max_duration="2 steps", val=None)
    assert given == [(None, "0", 0), (None, "0", 1)]
    run(Declaring(), max_duration="1 step")

    class Stepping(Own):
        def optimizer_step(self, optimizer, closure, *, progress, name):
            given.append((name, progress.step))
            optimizer.step(closure)

    run(Stepping(), max_duration="1 step")
    assert given[-1] == ("0", 0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_an_own_optimizer_step_ends_in_the_weights_of_the_default_one(precision):
    class Stepping(Own):
        def optimizer_step(self, optimizer, closure, *, name, progress):
            optimizer.step(closure)

    own, plain = Stepping(), Own()
    options = {"max_duration": "3 epochs", "optimizer": torch.optim.SGD, "precision": precision}

    assert run(own, **options).progress.step == run(plain, **options).progress.step
    assert torch.allclose(own.layer.weight, plain.layer.weight, atol=1e-6)


def test_logged_scalars_are_averaged_by_count_over_the_step_and_over_the_pass():
    class Logging(Own):
        def training_step(self, batch):
            n = len(batch[0])
            self.log("size", torch.tensor(float(n)), count=n)
            self.log("train/first", n)
            return self.error(batch).mean()

        def validation_step(self, batch):
            self.log("size", len(batch[0]), count=len(batch[0]))
            self.log("plain", float(len(batch[0])))
            self.log("loss", 99.0)
            return self.error(batch).mean()

    history = run(Logging(), accumulate=2, max_duration="3 steps", batch_size=10).history

    sizes = [row["train/size"] for row in history if "train/size" in row]
    assert sizes[:2] == [10.0, 4.0]
    assert history[0]["train/first"] == 10.0
    last = history[-1]
    assert last["val/size"] == pytest.approx((10 * 10 + 10 * 10 + 4 * 4) / 24)
    assert last["val/plain"] == pytest.approx(8.0)
    assert last["val/loss"] != 99.0
    with pytest.raises(ConfigError, match=r"'v' must be one number.*shape \(2,\)"):
        run(_logging_a_vector())


def _logging_a_vector():
    class Vector(Own):
        def training_step(self, batch):
            self.log("v", torch.ones(2))
            return super().training_step(batch)

    return Vector()


def test_progress_tells_a_step_how_far_the_run_is():
    seen = []

    class Asking(Own):
        def training_step(self, batch):
            progress = self.progress
            seen.append((progress.step, progress.batch, progress.epoch, progress.samples, progress.tokens))
            assert progress.seconds >= 0
            return self.error(batch).mean()

        def validation_step(self, batch):
            return self.error(batch).mean()

    run(Asking(), max_duration="2 epochs", batch_size=10)

    assert seen == [
        (0, 0, 0, 0, 0),
        (1, 1, 0, 10, 10),
        (2, 2, 0, 20, 20),
        (3, 3, 1, 24, 24),
        (4, 4, 1, 34, 34),
        (5, 5, 1, 44, 44),
    ]


def test_batch_size_weighs_a_bare_mean_and_an_unknown_one_is_said_once():
    class Opaque:
        def __init__(self, inputs, targets):
            self.pair = inputs, targets

    class Bare(Own):
        def training_step(self, batch):
            return self.error(batch.pair).mean()

    class Telling(Bare):
        def batch_size(self, batch):
            return len(batch.pair[0])

    batches = [Opaque(DATA.tensors[0][:20], DATA.tensors[1][:20]), Opaque(DATA.tensors[0][20:], DATA.tensors[1][20:])]
    told, silent = Telling(), []
    with torch.no_grad():
        expected = float(told.error(DATA.tensors).mean())
    options = {"data": batches, "val": batches, "batch_size": None, "learning_rate": 0.0, "accumulate": 2}

    result = run(told, say=silent.append, **options)
    said = []
    run(Bare(), say=said.append, **options)

    assert result.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert result.history[0]["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert sum("number of samples in a batch is unknown" in sentence for sentence in said) == 1
    assert not any("unknown" in sentence for sentence in silent)


def test_test_defaults_to_validation_and_validation_to_training():
    called = []

    class Only(Own):
        def training_step(self, batch):
            called.append(self.training)
            return self.error(batch).mean()

    class Validating(Only):
        def validation_step(self, batch):
            called.append("validation")
            return self.error(batch).mean()

    trainer = etude.Trainer(device="cpu", say=lambda _: None)
    assert trainer.test(Only(), DATA).keys() == {"test/loss"}
    assert called == [False]
    trainer.test(Validating(), DATA)
    assert called[-1] == "validation"
    assert trainer.validate(Validating(), DATA).keys() == {"val/loss"}


class Counting(Own):
    """Two terms, of which `counted` tells the targets."""

    counted = None

    def training_step(self, batch):
        error = self.error(batch)
        return {"square": etude.Loss(error.sum(), len(error)), "root": etude.Loss(error.sqrt().sum(), len(error))}

    def count_targets(self, batch):
        return self.counted


@pytest.mark.parametrize(
    ("counted", "message"), [({"square": 5}, "'root', which it must count too"), (5, "by the name")]
)
def test_wrong_counts_of_targets_are_refused_in_a_sentence(counted, message):
    task = Counting()
    task.counted = counted

    with pytest.raises(ConfigError, match=message):
        run(task, accumulate=2)


def test_a_round_in_which_no_loss_was_computed_logs_none():
    class Resting(Own):
        def optimizer_step(self, optimizer, closure, *, name, progress):
            if progress.step % 2:
                optimizer.step(closure)

    rows = [row for row in run(Resting()).history if "train/learning_rate" in row]

    assert ["train/loss" in row for row in rows] == [False, True, False, True, False]
    assert ["train/grad_norm" in row for row in rows] == [False, True, False, True, False]
