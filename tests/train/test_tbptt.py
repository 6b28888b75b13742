"""Truncated back-propagation through time: pieces, hiddens, and what of them a checkpoint keeps."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field

import pytest
import torch
from laws import assert_a_cut_changes_nothing
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.base.errors import ConfigError, DataError
from etude.data.nest import tensors
from etude.train.splitting import split_in_time

QUIET = {"device": "cpu", "precision": "float32", "say": lambda _: None, "progress": False, "log_every": "1 step"}


class Tracker(etude.Task):
    """Predicts a running sum; remembers which hiddens it was given."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(3)
        self.cell = nn.LSTM(2, 5, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(5, 1)
        self.given = []

    def training_step(self, batch, *, hiddens=None):
        inputs, targets = batch
        self.given.append(None if hiddens is None else hiddens[0].clone())
        states, hiddens = self.cell(inputs, hiddens)
        error = (self.head(self.drop(states)) - targets).square()
        return etude.StepOutput(etude.Loss(error.sum(), error.numel()), hiddens=hiddens)


def sequences(samples=12, time=7):
    draw = torch.Generator().manual_seed(8)
    inputs = torch.randn(samples, time, 2, generator=draw)
    return TensorDataset(inputs, inputs.sum(2, keepdim=True).cumsum(1))


def batches(samples=12, time=7, size=4):
    return DataLoader(sequences(samples, time), batch_size=size)


def fit(task=None, data=None, val=None, **options):
    options = {"max_duration": "2 epochs", "optimizer": "sgd", "learning_rate": 0.1, **QUIET, **options}
    task = task or Tracker()
    return task, etude.Trainer(**options).fit(task, data or batches(), val)


def parameters(task):
    return torch.cat([p.detach().flatten() for p in task.parameters()])


def by_hand(task, data, steps, *, epochs=2, carry=False, accumulate=1, rate=0.1):
    """The loop that a careful person writes."""
    optimizer = torch.optim.SGD(task.parameters(), lr=rate)
    for _ in range(epochs):
        hiddens, pending = None, []
        for inputs, targets in data:
            if not carry:
                hiddens = None
            for start in range(0, inputs.shape[1], steps):
                piece, target = inputs[:, start : start + steps], targets[:, start : start + steps]
                states, hiddens = task.cell(piece, hiddens)
                hiddens = tuple(part.detach() for part in hiddens)
                error = (task.head(states) - target).square()
                pending.append((error.sum(), error.numel()))
                if len(pending) == accumulate:
                    step(optimizer, pending)
        if pending:
            step(optimizer, pending)
    return task


def step(optimizer, pending):
    (sum(total for total, _ in pending) / sum(count for _, count in pending)).backward()
    optimizer.step()
    optimizer.zero_grad()
    pending.clear()


def test_one_piece_is_no_truncation_to_the_bit():
    pieces, result = fit(tbptt_steps=7)
    whole, other = fit()

    assert torch.equal(parameters(pieces), parameters(whole))
    assert result.progress.step == other.progress.step == 6
    more, _ = fit(tbptt_steps=100)
    assert torch.equal(parameters(more), parameters(whole))


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_several_pieces_equal_a_loop_written_by_hand(steps, carry):
    trained, result = fit(tbptt_steps=steps, carry_hiddens=carry)
    expected = by_hand(Tracker(), batches(), steps, carry=carry)

    assert torch.equal(parameters(trained), parameters(expected))
    assert result.progress.step == 2 * 3 * -(-7 // steps)
    assert result.progress.batch == 6
    assert result.progress.samples == 24


@pytest.mark.parametrize("accumulate", [2, 3])
def test_with_accumulation_a_piece_counts_as_a_batch(accumulate):
    trained, result = fit(tbptt_steps=3, accumulate=accumulate)
    expected = by_hand(Tracker(), batches(), 3, accumulate=accumulate)

    assert torch.allclose(parameters(trained), parameters(expected), atol=1e-7)
    assert result.progress.step == 2 * -(-9 // accumulate)


def test_a_batch_begins_without_hiddens_and_a_piece_with_those_of_the_one_before():
    task, _ = fit(tbptt_steps=3, max_duration="1 epoch")

    assert [one is None for one in task.given] == [True, False, False] * 3


def test_carried_hiddens_go_from_batch_to_batch_and_an_epoch_begins_anew():
    task, _ = fit(tbptt_steps=4, carry_hiddens=True)

    assert [one is None for one in task.given] == ([True] + [False] * 5) * 2
    alone, _ = fit(carry_hiddens=True, max_duration="1 epoch")
    assert [one is None for one in alone.given] == [True, False, False]


def test_a_carried_batch_whose_size_changes_is_refused():
    with pytest.raises(DataError, match=r"carries states of 4 samples to a batch of 2.*drop_last"):
        fit(data=batches(10), tbptt_steps=3, carry_hiddens=True)
    fit(data=batches(10), tbptt_steps=3)


def test_validation_hands_hiddens_on_too_so_its_loss_is_that_of_the_whole():
    class Watching(Tracker):
        def training_step(self, batch, *, hiddens=None):
            self.shapes = [*getattr(self, "shapes", []), (self.training, batch[0].shape[1])]
            return super().training_step(batch, hiddens=hiddens)

    task, pieces = fit(Watching(), val=batches(8), tbptt_steps=3, max_duration="1 step", sanity_batches=0)
    whole = etude.Trainer(**QUIET).validate(task, batches(8))

    assert pieces.metrics["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-6)
    assert [length for training, length in task.shapes if not training][:3] == [3, 3, 1]


def test_a_stream_is_validated_with_carried_state():
    stream = batches(4, 12, 4)
    inputs, targets = next(iter(stream))
    parts = [[inputs[:, :6], targets[:, :6]], [inputs[:, 6:], targets[:, 6:]]]
    task = Tracker()

    carried = etude.Trainer(**QUIET, tbptt_steps=3, carry_hiddens=True).validate(task, parts)
    whole = etude.Trainer(**QUIET).validate(task, stream)
    apart = etude.Trainer(**QUIET).validate(task, parts)

    assert carried["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-6)
    assert apart["val/loss"] != pytest.approx(whole["val/loss"], rel=1e-6)


def test_hiddens_of_a_step_that_is_not_finite_are_not_handed_on():
    class Breaking(Tracker):
        def training_step(self, batch, *, hiddens=None):
            output = super().training_step(batch, hiddens=hiddens)
            if len(self.given) == 2:
                return etude.StepOutput(
                    output.loss.sum * torch.nan, hiddens=tuple(h * torch.nan for h in output.hiddens)
                )
            return output

    task, result = fit(Breaking(), tbptt_steps=3, max_duration="1 epoch")

    assert result.skipped == 1
    assert torch.equal(task.given[2], task.given[1])
    assert torch.isfinite(parameters(task)).all()


class Two(Tracker):
    """Two optimizers, of which the second rests every other step."""

    def training_step(self, batch, *, hiddens=None, optimizer=None):
        output = super().training_step(batch, hiddens=hiddens)
        self.given[-1] = (optimizer, self.given[-1])
        return output

    def configure_optimizers(self):
        return {
            "cell": torch.optim.SGD(self.cell.parameters(), lr=0.1),
            "head": torch.optim.Adam(self.head.parameters(), lr=0.01),
        }

    def optimizer_step(self, optimizer, closure, *, name, progress):
        if name == "cell" or progress.step % 2 == 0:
            optimizer.step(closure)


def test_each_optimizer_has_hiddens_of_its_own():
    task = Two()
    trainer = etude.Trainer(max_duration="1 epoch", tbptt_steps=3, **QUIET)
    trainer.fit(task, batches(4))

    cell = [given for name, given in task.given if name == "cell"]
    head = [given for name, given in task.given if name == "head"]
    assert len(cell) == 3
    assert len(head) == 2
    assert not torch.equal(cell[2], head[1])  # the second optimizer has not seen the second piece


OPTIONS = {
    "pieces": {"tbptt_steps": 2},
    "carried": {"tbptt_steps": 3, "carry_hiddens": True},
    "accumulated": {"tbptt_steps": 2, "accumulate": 3, "carry_hiddens": True},
    "whole batches carried": {"carry_hiddens": True},
}


@pytest.mark.parametrize("kind", [Tracker, Two])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_cut_between_two_pieces_ends_as_the_unbroken_one(name, kind, tmp_path):
    def make(folder, callbacks):
        own = {} if kind is Two else {"learning_rate": {"schedule": "cosine", "peak": 0.05}}
        trainer = etude.Trainer(
            max_duration="2 epochs",
            save_every="2 steps",
            eval_every="3 steps",
            run_dir=folder,
            callbacks=callbacks,
            loggers=[],
            **own,
            **QUIET,
            **OPTIONS[name],
        )
        return trainer.fit(kind(dropout=0.3), DataLoader(sequences(), batch_size=4, shuffle=True), batches(8))

    straight = assert_a_cut_changes_nothing(tmp_path, make, [1, 4])
    assert_a_cut_changes_nothing(tmp_path, make, [3, 5], straight)


def test_the_horizon_counts_pieces():
    _, result = fit(tbptt_steps=2, learning_rate={"schedule": "linear", "peak": 1.0})

    rates = [row["train/learning_rate"] for row in result.history if "train/learning_rate" in row]
    assert len(rates) == 24
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(1 / 24)


def test_evaluations_may_fall_between_the_pieces_of_a_batch():
    _, result = fit(tbptt_steps=1, data=batches(4), val=batches(4), eval_every="0.5 epochs", max_duration="1 epoch")

    assert [row["step"] for row in result.history if "val/loss" in row] == [4, 7]


def test_a_task_that_takes_no_hiddens_or_gives_none_is_refused():
    class Plain(etude.Task):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def training_step(self, batch):
            return (self.layer(batch[0]) - batch[1]).square().mean()

    class Forgetful(Plain):
        def training_step(self, batch, *, hiddens=None):
            return super().training_step(batch)

    for option in ({"tbptt_steps": 2}, {"carry_hiddens": True}):
        with pytest.raises(ConfigError, match=rf"train.{next(iter(option))} needs .*does not take hiddens"):
            fit(Plain(), **option)
    with pytest.raises(ConfigError, match="must return StepOutput"):
        fit(Forgetful(), tbptt_steps=2)
    with pytest.raises(ConfigError, match="tbptt_steps"):
        fit(tbptt_steps=0)


def test_a_split_of_ones_own_is_used():
    class Halves(Tracker):
        def split_for_tbptt(self, batch, steps):
            return [[part[:, :steps] for part in batch], [part[:, steps:] for part in batch]]

    _, result = fit(Halves(), tbptt_steps=6, max_duration="1 epoch")
    assert result.progress.step == 6

    class Empty(Tracker):
        def split_for_tbptt(self, batch, steps):
            return []

    with pytest.raises(ConfigError, match="gave no piece"):
        fit(Empty(), tbptt_steps=2)


def test_packed_sequences_train_in_pieces():
    class Packed(Tracker):
        def training_step(self, batch, *, hiddens=None):
            inputs, targets = (pack_sequence(part) for part in batch) if isinstance(batch[0], list) else batch
            if hiddens is not None:
                left = int(inputs.batch_sizes[0])
                hiddens = tuple(part[:, :left] for part in hiddens)
            states, hiddens = self.cell(inputs, hiddens)
            error = (self.head(states.data) - targets.data).square()
            return etude.StepOutput(etude.Loss(error.sum(), error.numel()), hiddens=hiddens)

    lengths = [5, 4, 2]
    draw = torch.Generator().manual_seed(2)
    inputs = [torch.randn(n, 2, generator=draw) for n in lengths]
    targets = [one.sum(1, keepdim=True) for one in inputs]

    lists, result = fit(Packed(), [(inputs, targets)] * 3, tbptt_steps=2, max_duration="1 epoch")
    packed, _ = fit(
        Packed(), [(pack_sequence(inputs), pack_sequence(targets))] * 3, tbptt_steps=2, max_duration="1 epoch"
    )

    assert result.progress.step == 9
    assert result.progress.tokens == 3 * sum(lengths)
    assert torch.equal(parameters(lists), parameters(packed))


def test_a_packed_sequence_is_split_into_what_its_parts_make():
    draw = torch.Generator().manual_seed(1)
    parts = [torch.randn(n, 3, generator=draw) for n in (2, 5, 4)]

    pieces = split_in_time(pack_sequence(parts, enforce_sorted=False), 2)

    assert all(isinstance(piece, PackedSequence) for piece in pieces)
    for number, piece in enumerate(pieces):
        padded, lengths = pad_packed_sequence(piece, batch_first=True)
        expected = [part[2 * number : 2 * number + 2] for part in parts if len(part) > 2 * number]
        assert lengths.tolist() == [len(part) for part in expected]
        assert all(torch.equal(row[: len(part)], part) for row, part in zip(padded, expected, strict=True))


Pair = namedtuple("Pair", "y z")  # noqa: PYI024 - as users write them


@dataclass
class Targets:
    y: torch.Tensor
    z: torch.Tensor
    sizes: list = field(init=False, default_factory=list)


NESTS = {
    "list": lambda x, y, z: [x, [y, z]],
    "tuple": lambda x, y, z: (x, (y, z)),
    "list of one": lambda x, y, z: [x, [y], [z]],
    "mapping": lambda x, y, z: {"x": x, "targets": OrderedDict(y=y, z=z)},
    "mapping of a list": lambda x, y, z: {"x": x, "targets": [y, z], "names": ["a", "b"]},
    "named tuple": lambda x, y, z: (x, Pair(y, z)),
    "dataclass": lambda x, y, z: (x, Targets(y, z)),
    "deep": lambda x, y, z: [[x], {"all": [[y, [z]], torch.arange(len(x))]}],
}


@pytest.mark.parametrize(("samples", "time"), [(3, 10), (10, 10), (2, 7), (7, 2), (4, 4)])
@pytest.mark.parametrize("kind", NESTS)
def test_nests_of_every_kind_are_split_by_one_rule(kind, samples, time):
    x, y, z = torch.randn(samples, time, 2), torch.randn(samples, time), torch.randn(samples, time)
    batch = NESTS[kind](x, y, z)

    pieces = split_in_time(batch, 3)

    assert len(pieces) == -(-time // 3)
    for start, piece in zip(range(0, time, 3), pieces, strict=True):
        assert type(piece) is type(batch)
        part = slice(start, start + 3)
        found = [one for one in tensors(piece) if one.ndim > 1]
        assert all(torch.equal(one, of) for one, of in zip(found, (x[:, part], y[:, part], z[:, part]), strict=True))


def test_a_nested_list_of_one_sequence_a_sample_is_known_by_the_number_of_samples():
    padded = torch.zeros(3, 5, 2)
    ragged = [torch.zeros(length) for length in (5, 2, 5)]

    pieces = split_in_time((padded, ragged), 3)

    assert [list(map(len, piece[1])) for piece in pieces] == [[3, 2, 3], [2, 2]]


AMBIGUOUS = {
    "as many samples as steps": lambda: (torch.zeros(4, 4, 2), [torch.zeros(4, 4)] * 4),
    "nothing beside lists": lambda: ([torch.zeros(3, 5), torch.zeros(3, 5)], [torch.zeros(3, 5), torch.zeros(3, 5)]),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_may_be_read_in_two_ways_is_refused_with_the_line_to_add_and_that_line_settles_it(kind):
    batch = AMBIGUOUS[kind]()

    with pytest.raises(ConfigError, match=r'return etude\.split_in_time\(batch, steps, lists="parts"\)'):
        split_in_time(batch, 2)

    as_parts = etude.split_in_time(batch, 2, lists="parts")
    as_sequences = etude.split_in_time(batch, 2, lists="sequences")
    length = batch[1][0].shape
    assert tuple(as_parts[0][1][0].shape) == (length[0], 2)
    assert tuple(as_sequences[0][1][0].shape) == (2, length[1])


def test_what_has_no_time_goes_with_every_piece_and_what_disagrees_is_refused():
    batch = {"x": torch.zeros(2, 5, 3), "label": torch.tensor([1, 2]), "name": "a", "rest": (torch.ones(2, 5), None)}

    pieces = split_in_time(batch, 3)

    assert [piece["x"].shape for piece in pieces] == [(2, 3, 3), (2, 2, 3)]
    assert [piece["rest"][0].shape for piece in pieces] == [(2, 3), (2, 2)]
    assert all(piece["label"] is batch["label"] and piece["name"] == "a" for piece in pieces)
    with pytest.raises(ConfigError, match=r"part 0 5, part 1 6.*split_for_tbptt"):
        split_in_time((torch.zeros(2, 5), torch.zeros(2, 6)), 2)
    with pytest.raises(ConfigError, match="finds nothing to split"):
        split_in_time([torch.zeros(2), "a"], 2)


def test_a_task_written_for_sequences_runs_with_worker_processes():
    alone, _ = fit(tbptt_steps=3)
    helped, _ = fit(data=DataLoader(sequences(), batch_size=4, num_workers=2), tbptt_steps=3)

    assert torch.equal(parameters(alone), parameters(helped))
