"""Hidden states that are carried go on on any number of ranks: the rows of a batch are dealt out anew."""

import pytest
import torch
from in_ranks import in_ranks
from small_runs import trainer
from test_ranks import Two, close, data
from torch import nn
from torch.utils.data import DataLoader

import etude
from etude.train.step.dealing import Deal, UnclearError, recurrent_states

STEPS = 20


class Stacked(Two):
    """Two layers of states, as many as rows on each of two ranks; only its recurrent layers tell which is which."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 6, num_layers=2, batch_first=True, dtype=torch.float64)


class Layers(Two):
    """Recurrent layers in a list, which lie sharded each by itself; the second gives a view."""

    def __init__(self):
        super().__init__()
        del self.rnn
        self.layers = nn.ModuleList([nn.GRU(3, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)]).double()

    def training_step(self, batch, *, hiddens=None):
        inputs, targets, weight = batch
        before, *others = hiddens or (None, None)
        states, first = self.layers[0](inputs, before)
        states, second = self.layers[1](states, *others)
        found = ((self.out(states).squeeze(-1) - targets).square() * weight[:, None]).sum()
        return etude.StepOutput(etude.Loss(found, float(weight.sum())), hiddens=(first, second))


class Unclear(Two):
    """States as wide as rows are many, of no recurrent layer of torch's."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
        self.out = nn.Linear(4, 1, dtype=torch.float64)

    def training_step(self, batch, *, hiddens=None):
        returned = super().training_step(batch, hiddens=None if hiddens is None else hiddens["last"])
        square = torch.zeros(len(batch[0]), len(batch[0]))
        return etude.StepOutput(returned.loss, hiddens={"last": returned.hiddens, "square": square})


def train(rank, folder, kind, steps, strategy="ddp", say=lambda _: None):
    task = kind()
    options = {
        "distributed": {"strategy": strategy},
        "max_duration": f"{steps} steps",
        "eval_every": "10 steps",
        "save_every": "3 steps",
        "tbptt_steps": 5,
    }
    fit = trainer(folder, learning_rate=1e-2, carry_hiddens=True, say=say, **options)
    result = fit.fit(task, DataLoader(data(24), batch_size=4), DataLoader(data(8), batch_size=4))
    return result.history, {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize(("kind", "strategy"), [(Layers, "fsdp"), (Stacked, "ddp")])
def test_carried_states_go_on_on_another_number_of_ranks(kind, strategy, tmp_path):
    alone = train(0, tmp_path / "one", kind, STEPS)

    in_ranks(2, train, tmp_path / "many", kind, 4, strategy)  # between two pieces of a batch
    train(0, tmp_path / "many", kind, 8)
    in_ranks(3, train, tmp_path / "many", kind, 13, strategy)
    first, _ = in_ranks(2, train, tmp_path / "many", kind, STEPS, strategy)

    for name, value in alone[1].items():
        if name != "mean":  # of a batch's parts in place of the batch
            torch.testing.assert_close(value, first[1][name], rtol=1e-9, atol=1e-11)
    after = [row for row in alone[0] if row["step"] > 13]
    close(after, [row for row in first[0] if row["step"] > 13], 1e-9)
    assert after


def test_states_of_which_nothing_tells_the_rows_begin_anew_and_the_run_says_so(tmp_path):
    in_ranks(2, train, tmp_path, Unclear, 4)

    said = []
    train(0, tmp_path, Unclear, 5, say=said.append)

    assert any("nothing tells which of their dimensions has the batch's rows, of 1 ranks" in text for text in said)


def test_rows_are_dealt_in_the_order_of_the_batch():
    whole = torch.arange(7.0)
    before = [whole[rank::3] for rank in range(3)]

    for world in (1, 2, 4, 7):
        for rank in range(world):
            deal = Deal([3, 2, 2], rank, world)
            assert torch.equal(deal.of(before), whole[rank::world])
            assert torch.equal(deal.of([part.repeat(2, 1) for part in before]), whole[rank::world].repeat(2, 1))


@pytest.mark.parametrize(
    ("shape", "known", "along"),
    [((2, 5, 4), (), 0), ((5, 2, 4), (), 1), ((2, 2, 6), (), None), ((2, 2, 6), {(2, 6)}, 1), ((3, 5), (), None)],
)
def test_the_rows_of_a_state_are_found_or_not_guessed(shape, known, along):
    deal = Deal([2, 2], 0, 1, known)
    parts = [torch.zeros(shape), torch.ones(shape)]

    if along is None:
        with pytest.raises(UnclearError):
            deal.of(parts)
    else:
        assert deal.of(parts).shape == tuple(size * (2 if at == along else 1) for at, size in enumerate(shape))


def test_the_states_of_recurrent_layers_are_known():
    assert recurrent_states(nn.Sequential(nn.GRU(3, 5, 2, bidirectional=True), nn.Linear(2, 2))) == {(4, 5)}
