"""Laws of variational noise: gradients at noisy weights, steps from the clean ones, draws that are computed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import etude
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.train.config import TrainConfig
from etude.train.optim.slot import Slot
from etude.train.step.noise import NoNoise, ParameterNoise, noise_of
from etude.train.step.precision import Precision
from etude.train.step.update import Update
from etude.train.values import Values

CPU = torch.device("cpu")
LENGTH = Horizon(10, 10, 1, 1)


class Fitting(etude.Task):
    def __init__(self, layers=2):
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        self.register_buffer("seen", torch.zeros(3))

    def training_step(self, batch):
        inputs, targets = batch
        return etude.Loss(F.mse_loss(self.layers(inputs), targets, reduction="sum"), len(inputs))


def data(samples=12, seed=6):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 4, generator=draw), torch.randn(samples, 4, generator=draw)


def values(task):
    return {name: p.detach().clone() for name, p in task.named_parameters()}


def noise_in(task, step=0, **options):
    """What the noise of a step adds, by parameter, as far as float32 tells."""
    before = values(task)
    with ParameterNoise(task, **{"sigma": 0.5, **options}).applied(step):
        return {name: value - before[name] for name, value in values(task).items()}


def same(one, other):
    return [name for name in one if torch.equal(one[name], other[name])]


def zeros(task):
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.zero_()
    return task


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_bit_of_the_weights_comes_back(dtype):
    task = Fitting().to(dtype)
    before = values(task)

    with ParameterNoise(task, 1e3).applied(3):
        assert not same(values(task), before)

    assert len(same(values(task), before)) == 4
    assert all(p.requires_grad and p.grad is None for p in task.parameters())


def test_the_weights_come_back_when_the_step_fails():
    task = Fitting()
    before = values(task)

    with pytest.raises(ZeroDivisionError), ParameterNoise(task, 0.1).applied(3):
        raise ZeroDivisionError

    assert len(same(values(task), before)) == 4


def test_the_noise_is_normal_with_the_deviation_asked_for():
    task = etude.Task()
    task.large = nn.Parameter(torch.zeros(400_000))

    drawn = noise_in(task, sigma=0.05)["large"].double()

    assert float(drawn.mean()) == pytest.approx(0.0, abs=4 * 0.05 / 400_000**0.5)
    assert float(drawn.std()) == pytest.approx(0.05, rel=0.005)
    shares = [float((drawn.abs() < 0.05 * width).double().mean()) for width in (1, 2, 3)]
    assert shares == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.003)


def test_a_draw_follows_seed_stage_step_and_name_alone():
    first = noise_in(zeros(Fitting()), step=4, seed=1, stage="a")
    torch.manual_seed(77)

    assert len(same(first, noise_in(zeros(Fitting()), step=4, seed=1, stage="a"))) == 4
    for other in ({"step": 5}, {"seed": 2}, {"stage": "b"}):
        assert same(first, noise_in(zeros(Fitting()), **{"step": 4, "seed": 1, "stage": "a", **other})) == []
    assert len({float(noise.flatten()[0]) for noise in first.values()}) == 4


def test_a_new_layer_changes_the_noise_of_no_other():
    fewer, more = noise_in(zeros(Fitting(2))), noise_in(zeros(Fitting(3)))

    assert same(fewer, {name: more[name] for name in fewer}) == list(fewer)


def test_the_generators_of_the_run_are_left_alone():
    task = Fitting()
    before = torch.get_rng_state()

    noise_in(task)

    assert torch.equal(torch.get_rng_state(), before)


def test_buffers_and_what_is_not_trained_get_none():
    task = Fitting()
    task.layers[0].requires_grad_(False)
    before = {name: value.clone() for name, value in task.state_dict().items()}

    with ParameterNoise(task, 0.5).applied(0):
        kept = [name for name, value in task.state_dict().items() if torch.equal(value, before[name])]

    assert kept == ["seen", "layers.0.weight", "layers.0.bias"]


def test_what_is_trainable_is_found_out_anew_before_each_round():
    task = Fitting()
    task.layers.requires_grad_(False)
    noise = ParameterNoise(task, 0.5)
    task.layers[1].requires_grad_(True)
    noise.begin()
    before = values(task)

    with noise.applied(0):
        assert same(values(task), before) == ["layers.0.weight", "layers.0.bias"]


def update(task, slots, noise):
    return Update(task, slots, device=CPU, precision=Precision("float32", CPU), noise=noise)


def test_a_step_takes_the_gradient_at_noisy_weights_and_moves_the_clean_ones():
    task, other = Fitting(), Fitting()
    step, batch = 7, data()
    slot = Slot("0", torch.optim.SGD(task.parameters(), lr=0.1), notice=lambda _: None)

    update(task, [slot], ParameterNoise(task, 0.3, seed=5))([batch], Progress(step=step))

    clean = values(other)
    added = noise_in(other, step, sigma=0.3, seed=5)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.add_(added[name])
    F.mse_loss(other.layers(batch[0]), batch[1], reduction="sum").div(12).backward()
    wanted = {name: clean[name] - 0.1 * p.grad for name, p in other.named_parameters()}
    for name, value in values(task).items():
        torch.testing.assert_close(value, wanted[name])


def test_all_batches_of_a_step_see_the_same_noise():
    ends = []
    for batches in ([data()], list(zip(*(tensor.split(4) for tensor in data()), strict=True))):
        task = Fitting().double()
        slot = Slot("0", torch.optim.SGD(task.parameters(), lr=0.1), notice=lambda _: None)
        group = [tuple(tensor.double() for tensor in batch) for batch in batches]
        update(task, [slot], ParameterNoise(task, 0.3))(group, Progress())
        ends.append(torch.cat([p.detach().flatten() for p in task.parameters()]))

    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_all_optimizers_of_a_round_see_the_same_noise():
    seen = []

    class Watching(Fitting):
        def training_step(self, batch, *, optimizer):
            seen.append(values(self))
            return super().training_step(batch)

    task = Watching()
    everything = list(task.parameters())
    slots = [
        Slot(str(index), torch.optim.SGD(layer.parameters(), lr=0.0), others=everything)
        for index, layer in enumerate(task.layers)
    ]
    clean = values(task)

    update(task, slots, ParameterNoise(task, 0.3))([data()], Progress())

    assert same(seen[0], clean) == []
    assert len(same(*seen)) == 4


def test_without_noise_nothing_is_drawn_or_copied():
    task = Fitting()
    before = [p._version for p in task.parameters()]

    for noise in (NoNoise(), ParameterNoise(task, 0.0)):
        with noise.applied(0):
            assert [p._version for p in task.parameters()] == before


def test_a_config_asks_for_noise_by_a_number_or_a_schedule():
    ramp = {"schedule": "linear", "from": 0.0, "to": 0.2, "over": "4 steps"}
    task = Fitting()

    off, none = noise_of(task, TrainConfig().parameter_noise, seed=1)
    fixed, no_more = noise_of(task, TrainConfig(parameter_noise=0.1).parameter_noise, seed=1)
    moving, scheduled = noise_of(task, TrainConfig(parameter_noise=ramp).parameter_noise, seed=1)
    values = Values(scheduled, LENGTH)
    values.set(Progress(step=2))

    assert (type(off), none, no_more) == (NoNoise, [], [])
    assert (fixed.sigma, moving.sigma, values.row()) == (0.1, 0.1, {"parameter_noise": 0.1})


@pytest.mark.parametrize("several", [1, 2])
def test_the_option_changes_what_is_learnt_and_is_logged_where_it_is_a_schedule(several):
    ramp = {"schedule": "linear", "from": 0.2, "to": 0.1, "over": "4 steps"}
    quiet = {"say": lambda _: None, "progress": False, "device": "cpu", "precision": "float32", "log_every": "1 step"}
    ends, rows = [], []
    for noise in (0.0, 0.2, ramp):
        task = Fitting()
        batches = [data(4, seed) for seed in range(4)]
        options = {"max_duration": "1 epoch", "accumulate": several, "parameter_noise": noise, "optimizer": "sgd"}
        rows.append(etude.Trainer(**quiet, **options).fit(task, train=batches).history)
        ends.append(torch.cat([p.detach().flatten() for p in task.parameters()]))

    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])
    logged = [[row["train/parameter_noise"] for row in run if "train/parameter_noise" in row] for run in rows]
    assert logged == [[], [], pytest.approx([0.2, 0.175, 0.15, 0.125][: 4 // several])]
