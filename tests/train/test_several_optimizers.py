"""Several optimizers: each in turn over the whole group, its own parameters alone, its own clock, exactly resumed."""

import pytest
import torch
import torch.nn.functional as F
from laws import assert_a_cut_changes_nothing
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.base.errors import ConfigError

QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


class Gan(etude.Task):
    """A generator of points in the plane and its critic."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        self.calls = []
        self.flags = []

    def training_step(self, batch, *, optimizer=None):
        self.calls.append((optimizer, len(batch)))
        self.flags.append((optimizer, [p.requires_grad for p in self.parameters()]))
        return self.loss(batch, optimizer)

    def loss(self, batch, optimizer):
        fake = self.generator(torch.randn(len(batch), 3))
        if optimizer == "generator":
            return F.softplus(-self.critic(fake)).mean()
        return F.softplus(self.critic(fake)).mean() + F.softplus(-self.critic(batch)).mean()

    def validation_step(self, batch):
        return self.critic(batch).square().mean()

    def configure_optimizers(self):
        return {
            "critic": torch.optim.Adam(self.critic.parameters(), lr=1e-2, betas=(0.5, 0.9)),
            "generator": torch.optim.SGD(self.generator.parameters(), lr=1e-1, momentum=0.9),
        }


def points(samples=48):
    draw = torch.Generator().manual_seed(4)
    return torch.randn(samples, 2, generator=draw) + 3


def batches(size=8):
    return list(points().split(size))


def fit(task, data=None, **options):
    return etude.Trainer(**{"max_duration": "2 epochs", **QUIET, **options}).fit(
        task, batches() if data is None else data
    )


def parameters(task):
    return torch.cat([p.detach().flatten() for p in task.parameters()])


def by_hand(task, rounds, every=lambda name, step: True, accumulate=1):
    """The GAN loop that a careful person writes, with Etude's seeds before each forward."""
    from etude.base.randomness import seed_of

    optimizers = task.configure_optimizers()
    data = batches()
    for step in range(rounds):
        start = step * accumulate
        group = [data[(start + index) % len(data)] for index in range(accumulate)]
        for name, optimizer in optimizers.items():
            if not every(name, step):
                continue
            for index, batch in enumerate(group):
                torch.manual_seed(seed_of(1, "", "forward", step, index, name))
                loss = task.loss(batch, name) * (len(batch) / sum(map(len, group)))
                own = list(getattr(task, name).parameters())
                for parameter, grad in zip(own, torch.autograd.grad(loss, own), strict=True):
                    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
            optimizer.step()
            optimizer.zero_grad()
    return task


def test_two_optimizers_equal_a_gan_loop_by_hand_over_fifty_steps_to_the_bit():
    trained = Gan()
    fit(trained, max_duration="50 steps")

    assert torch.equal(parameters(trained), parameters(by_hand(Gan(), 50)))


def test_intervals_in_optimizer_step_equal_those_by_hand_and_cost_no_forward():
    class Slow(Gan):
        def optimizer_step(self, optimizer, closure, *, name, progress):
            if name == "critic" or progress.step % 3 == 0:
                optimizer.step(closure)

    trained = Slow()
    fit(trained, max_duration="20 steps")

    expected = by_hand(Gan(), 20, every=lambda name, step: name == "critic" or step % 3 == 0)
    assert torch.equal(parameters(trained), parameters(expected))
    assert sum(name == "generator" for name, _ in trained.calls) == 7


def test_with_accumulation_each_optimizer_runs_over_the_whole_group_before_the_next():
    trained = Gan()
    result = fit(trained, accumulate=3)

    assert [name for name, _ in trained.calls[:6]] == ["critic"] * 3 + ["generator"] * 3
    assert result.progress.step == 4
    assert torch.allclose(parameters(trained), parameters(by_hand(Gan(), 4, accumulate=3)), atol=1e-6)


def test_only_the_optimizers_own_parameters_require_gradients_and_flags_come_back_exactly():
    task = Gan()
    task.generator[0].bias.requires_grad_(False)  # the user's own wish
    before = [p.requires_grad for p in task.parameters()]
    frozen = task.generator[0].bias.clone()
    fit(task, max_duration="3 steps")

    count = len(list(task.generator.parameters()))
    for name, flags in task.flags:
        if name == "critic":
            assert not any(flags[:count])
            assert all(flags[count:])
        else:
            assert flags[:count] == before[:count]
            assert not any(flags[count:])
    assert [p.requires_grad for p in task.parameters()] == before
    assert torch.equal(task.generator[0].bias, frozen)


def test_flags_come_back_when_a_step_fails():
    class Failing(Gan):
        def training_step(self, batch, *, optimizer=None):
            raise RuntimeError("broken")

    task = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        fit(task)

    assert all(p.requires_grad for p in task.parameters())


def test_losses_norms_and_rates_are_logged_by_optimizer_and_samples_counted_once():
    result = fit(Gan(), max_duration="2 steps")

    row = result.history[0]
    assert row["train/loss"] == pytest.approx(row["train/loss/critic"] + row["train/loss/generator"])
    assert row["train/grad_norm"] == pytest.approx(
        (row["train/grad_norm/critic"] ** 2 + row["train/grad_norm/generator"] ** 2) ** 0.5
    )
    assert (row["train/learning_rate/critic"], row["train/learning_rate/generator"]) == (1e-2, 1e-1)
    assert "train/learning_rate" not in row
    assert result.progress.samples == result.progress.tokens == 16


def test_terms_of_different_names_keep_them():
    class Named(Gan):
        def loss(self, batch, optimizer):
            value = super().loss(batch, optimizer)
            return {"fool" if optimizer == "generator" else "judge": etude.Loss.mean(value, len(batch))}

    row = fit(Named(), max_duration="1 step").history[0]

    assert row["train/loss"] == pytest.approx(row["train/fool"] + row["train/judge"])


def test_clipping_is_over_the_parameters_of_the_one_that_steps():
    norms = {}

    class Reading(etude.Callback):
        def on_before_step(self, run, optimizer):
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms[type(optimizer).__name__] = float(torch.nn.utils.get_total_norm(grads))

    result = fit(Gan(), max_duration="1 step", clip_grad=0.01, callbacks=[Reading()])

    assert norms == {"Adam": pytest.approx(0.01, rel=1e-3), "SGD": pytest.approx(0.01, rel=1e-3)}
    assert result.history[0]["train/grad_norm/critic"] > 0.02


def test_one_optimizer_that_is_not_finite_skips_its_step_alone_and_the_step_is_counted():
    class Breaking(Gan):
        def loss(self, batch, optimizer):
            value = super().loss(batch, optimizer)
            return value * torch.nan if optimizer == "critic" and self.progress.step == 1 else value

    task, seen = Breaking(), []

    class Reading(etude.Callback):
        def on_step_end(self, run, outcome):
            seen.append((parameters(task.critic), parameters(task.generator)))

    result = fit(task, max_duration="3 steps", callbacks=[Reading()])

    assert result.skipped == 1
    assert torch.equal(seen[1][0], seen[0][0])
    assert not torch.equal(seen[1][1], seen[0][1])
    assert torch.isfinite(parameters(task)).all()


def adam(module, rate=0.01):
    return torch.optim.Adam(module.parameters(), lr=rate)


def forms(task):
    first, second = adam(task.critic), adam(task.generator, 0.02)
    step_lr = torch.optim.lr_scheduler.StepLR(second, 1, gamma=0.5)
    return {
        "one": (first, ["0"]),
        "a pair": ((first, second), ["0", "1"]),
        "a list": ([first, second], ["0", "1"]),
        "lists of optimizers and schedules": (([first, second], [step_lr]), ["0", "1"]),
        "schedules in order": (([first, second], [{"schedule": "linear", "peak": 0.1}]), ["0", "1"]),
        "names": (
            {"critic": first, "generator": (second, {"schedule": "constant", "peak": 0.3})},
            ["critic", "generator"],
        ),
        "scheduled": (
            {
                "critic": etude.Scheduled(first, torch.optim.lr_scheduler.ExponentialLR(first, 0.9), every="2 steps"),
                "generator": second,
            },
            ["critic", "generator"],
        ),
    }


@pytest.mark.parametrize("form", list(forms(Gan())))
def test_every_form_of_configure_optimizers_is_taken(form):
    names = []

    class Formed(Gan):
        def configure_optimizers(self):
            return forms(self)[form][0]

        def loss(self, batch, optimizer):
            names.append(optimizer)
            return self.critic(self.generator(torch.ones(len(batch), 3))).mean()

    expected = forms(Gan())[form][1]
    result = fit(Formed(), max_duration="3 steps")

    assert names == expected * 3
    rates = (
        [[row[f"train/learning_rate/{name}"] for name in expected] for row in result.history if "train/loss" in row]
        if len(expected) > 1
        else []
    )
    if form == "schedules in order":
        assert [round(first, 6) for first, _ in rates] == [0.1, round(0.2 / 3, 6), round(0.1 / 3, 6)]
    if form == "names":
        assert [second for _, second in rates] == [0.3] * 3
    if form == "scheduled":
        assert [first for first, _ in rates] == [0.01, 0.01, pytest.approx(0.009)]


def test_wrong_forms_are_refused_in_a_sentence():
    for wrong in ("adam", {"a": 3}, [], ([adam(Gan().critic)], [1, 2])):

        class Wrong(Gan):
            def configure_optimizers(self, wrong=wrong):
                return wrong

        with pytest.raises(ConfigError, match=r"configure_optimizers|schedule"):
            fit(Wrong())


class Scheduled(Gan):
    """A plateau, a torch scheduler by epoch, and one of Etude's, each on a clock of its own."""

    def __init__(self):
        super().__init__()
        self.third = nn.Linear(2, 2)

    def loss(self, batch, optimizer):
        if optimizer == "extra":
            return self.third(batch).square().mean()
        return super().loss(batch, optimizer)

    def configure_optimizers(self):
        critic, generator = adam(self.critic), torch.optim.SGD(self.generator.parameters(), lr=0.1)
        extra = adam(self.third)
        return {
            "critic": (critic, torch.optim.lr_scheduler.ReduceLROnPlateau(critic, factor=0.5, patience=0)),
            "generator": (generator, torch.optim.lr_scheduler.StepLR(generator, 1, gamma=0.5)),
            "extra": (
                extra,
                {"schedule": "plateau", "peak": 0.01, "patience": 1, "monitor": "val/loss", "mode": "max"},
            ),
        }

    def optimizer_step(self, optimizer, closure, *, name, progress):
        if name != "generator" or progress.step % 2 == 0:
            optimizer.step(closure)


def test_each_has_its_own_schedule_and_those_that_read_validations_do():
    result = fit_scheduled(None, [])

    rows = [row for row in result.history if "train/loss" in row]
    generator = [row["train/learning_rate/generator"] for row in rows]
    assert [generator[at] for at in (0, 5, 6, 11, 12)] == [0.1, 0.1, 0.05, 0.05, 0.025]
    critic = [row["train/learning_rate/critic"] for row in rows]
    extra = [row["train/learning_rate/extra"] for row in rows]
    assert critic[0] == 0.01
    assert min(critic) < 0.01 or min(extra) < 0.01  # one of them sees no improvement: their modes are opposite


def fit_scheduled(folder, callbacks):
    options = {} if folder is None else {"run_dir": folder, "loggers": [], "save_every": "4 steps"}
    trainer = etude.Trainer(
        max_duration="3 epochs",
        eval_every="2 steps",
        clip_grad=1.0,
        ema_decay=0.9,
        callbacks=callbacks,
        **QUIET,
        **options,
    )
    return trainer.fit(
        Scheduled(), DataLoader(points(), batch_size=8, shuffle=True), DataLoader(points(16), batch_size=8)
    )


@pytest.mark.parametrize("cuts", [[3], [6, 11], [13, 17]])
def test_a_run_of_several_optimizers_that_is_cut_ends_as_the_unbroken_one(cuts, tmp_path):
    assert_a_cut_changes_nothing(tmp_path, fit_scheduled, cuts)


class Curve(etude.Task):
    """Least squares, for L-BFGS."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
        self.evaluations = 0

    def training_step(self, batch):
        self.evaluations += 1
        inputs, targets = batch
        return (self.net(inputs) - targets).square().mean()

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), max_iter=8, line_search_fn="strong_wolfe")


def curve():
    inputs = torch.linspace(-1, 1, 32)[:, None]
    return [[inputs, inputs.square()]]


def test_lbfgs_equals_the_loop_by_hand_to_the_bit():
    task, expected = Curve(), Curve()
    fit(task, curve(), max_duration="5 steps")
    optimizer = expected.configure_optimizers()
    (batch,) = curve()

    def closure():
        optimizer.zero_grad()
        loss = expected.training_step(batch)
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)

    assert torch.equal(parameters(task), parameters(expected))
    assert task.evaluations == expected.evaluations > 10


def test_lbfgs_that_is_cut_ends_as_the_unbroken_one(tmp_path):
    def make(folder, callbacks):
        trainer = etude.Trainer(
            max_duration="6 steps", save_every="2 steps", run_dir=folder, loggers=[], callbacks=callbacks, **QUIET
        )
        return trainer.fit(Curve(), curve())

    assert_a_cut_changes_nothing(tmp_path, make, [3, 5])


def test_a_hand_made_warm_up_sets_the_rate_that_is_used_and_logged():
    class Warming(Curve):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def optimizer_step(self, optimizer, closure, *, name, progress):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * min(1.0, (progress.step + 1) / 4)
            optimizer.step(closure)

    result = fit(Warming(), curve(), max_duration="5 steps")

    rates = [row["train/learning_rate"] for row in result.history if "train/learning_rate" in row]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def test_the_gradient_of_a_step_that_was_not_taken_is_added_to():
    grads = []

    class Holding(Curve):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def optimizer_step(self, optimizer, closure, *, name, progress):
            closure()
            grads.append(self.net[0].weight.grad.clone())
            if progress.step == 1:
                optimizer.step()

    fit(Holding(), curve(), max_duration="3 steps")

    assert torch.allclose(grads[1], 2 * grads[0])
    assert torch.allclose(grads[2], grads[0])


def test_samples_are_seen_by_every_optimizer_in_the_same_order():
    class Seeing(Gan):
        def loss(self, batch, optimizer):
            self.seen = [*getattr(self, "seen", []), (optimizer, batch.sum().item())]
            return super().loss(batch, optimizer)

    task = Seeing()
    fit(
        task,
        DataLoader(
            TensorDataset(points()),
            batch_size=8,
            shuffle=True,
            collate_fn=lambda rows: torch.stack([row[0] for row in rows]),
        ),
    )

    by_name = {name: [value for one, value in task.seen if one == name] for name in ("critic", "generator")}
    assert by_name["critic"] == by_name["generator"]
