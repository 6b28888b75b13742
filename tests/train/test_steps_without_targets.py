"""A batch in which no target counts takes no step: nothing decays, nothing moves, and it is counted."""

import pytest
import torch
from torch import nn

import etude
from etude.train.step.outcome import Outcome
from etude.train.step.terms import Term

QUIET = {"progress": False, "device": "cpu", "precision": "float32", "loggers": []}
OPTIMIZERS = {
    "decay": {"optimizer": {"type": "adamw", "weight_decay": 0.5}, "learning_rate": 0.1},
    "momentum": {"optimizer": {"type": "sgd", "momentum": 0.9, "weight_decay": 0.1}, "learning_rate": 0.1},
    "average": {"optimizer": {"type": "sgd"}, "learning_rate": 0.1, "ema_decay": 0.9},
}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.norm, self.head = nn.Embedding(9, 8), nn.BatchNorm1d(8), nn.Linear(8, 9)

    def forward(self, tokens):
        return self.head(self.norm(self.table(tokens).transpose(1, 2)).transpose(1, 2))


def batches(*empty, number=6):
    draw = torch.Generator().manual_seed(2)
    made = [list(torch.randint(1, 9, (2, 4, 5), generator=draw)) for _ in range(number)]
    for index in empty:
        made[index][1] = torch.zeros_like(made[index][1])
    return made


def fit(data, loss=None, **options):
    net, said = Tagger(), []
    settings = {"max_duration": "1 epoch", "log_every": "1 step", "say": said.append, **QUIET, **options}
    result = etude.fit(net, data, loss=loss or etude.losses.CrossEntropy(ignore_index=0), **settings)
    return net, result, [sentence for sentence in said if "no target in a batch" in sentence]


def equal(net, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("loss", [etude.losses.CrossEntropy(ignore_index=0), nn.CrossEntropyLoss(ignore_index=0)])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_with_batches_without_targets_ends_as_one_without_these_batches(kind, loss):
    net, result, said = fit(batches(2, 4), loss, **OPTIMIZERS[kind])

    without, expected, _ = fit(
        [one for index, one in enumerate(batches()) if index not in {2, 4}], loss, **OPTIMIZERS[kind]
    )
    assert equal(net, without)
    assert result.progress.tokens == expected.progress.tokens
    assert len(said) == 1
    assert said[0].startswith("Step 3: no target in a batch counts")
    assert [row.get("train/batches_without_targets") for row in result.history] == [None, None, 1, 1, 2, 2]
    assert ["train/loss" in row for row in result.history] == [True, True, False, True, False, True]
    assert result.skipped == 0


def test_a_group_takes_its_step_where_one_of_its_batches_has_targets():
    net, result, said = fit(batches(2, 3, 4), accumulate=2, **OPTIMIZERS["decay"])

    expected, _, _ = fit([*batches()[:2], *batches(4)[4:]], accumulate=2, **OPTIMIZERS["decay"])
    assert equal(net, expected)
    assert len(said) == 1
    assert result.history[-1]["train/batches_without_targets"] == 3


def test_an_optimizer_that_evaluates_the_loss_itself_takes_no_step_either():
    class Evaluated(etude.Task):
        def __init__(self):
            super().__init__()
            self.net = Tagger()

        def training_step(self, batch):
            return etude.losses.CrossEntropy(ignore_index=0)(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=2)

    task, before = Evaluated(), Tagger()
    etude.Trainer(max_duration="1 epoch", say=lambda _: None, **QUIET).fit(task, batches(0, number=1))

    assert equal(task.net, before)


def test_gradients_kept_from_earlier_rounds_are_stepped_with_all_the_same():
    class Rare(etude.Task):
        def __init__(self):
            super().__init__()
            self.net = Tagger()

        def training_step(self, batch):
            return etude.losses.CrossEntropy(ignore_index=0)(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def optimizer_step(self, optimizer, closure, *, progress):
            closure()
            if progress.step % 2:
                optimizer.step()

    task = Rare()
    etude.Trainer(max_duration="1 epoch", say=lambda _: None, **QUIET).fit(task, batches(1, number=2))

    by_hand = Tagger()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    inputs, targets = batches()[0]
    nn.functional.cross_entropy(by_hand(inputs).transpose(1, 2), targets, ignore_index=0).backward()
    optimizer.step()
    torch.testing.assert_close(task.net.head.weight, by_hand.head.weight)


def test_the_count_goes_on_after_a_resume_and_the_run_ends_in_the_same_bits(tmp_path):
    options = {**OPTIMIZERS["decay"], "save_every": "1 step"}
    whole, _, _ = fit(batches(1, 4), run_dir=tmp_path / "whole", **options)

    _, _, said = fit(batches(1, 4), run_dir=tmp_path / "cut", **options | {"max_duration": "3 steps"})
    resumed, again, more = fit(batches(1, 4), run_dir=tmp_path / "cut", **options)

    assert equal(resumed, whole)
    assert again.history[-1]["train/batches_without_targets"] == 2
    assert (len(said), more) == (1, [])


@pytest.mark.parametrize(("counts", "left_out"), [([0, 0], True), ([0, 3], False)])
def test_counts_that_a_device_holds_leave_a_step_out_without_being_read(counts, left_out):
    outcome = Outcome()
    for count in counts:
        outcome.add(Term("loss", torch.tensor(0.0), torch.tensor(count)), torch.tensor(0.0))

    outcome.judge()
    norm = outcome.leaving_out(torch.tensor(2.0))

    assert (outcome.empty, bool(norm.isinf())) == (False, left_out)
    outcome.judge(read=True)
    assert outcome.empty is left_out
