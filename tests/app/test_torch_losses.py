"""torch's losses as people write them: a mean is counted as it divides, and classes may be in the last dimension."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from python_face import QUIET
from torch import nn

import etude
from etude.base.errors import ConfigError
from etude.model.losses.torchs import FUNCTIONS, MODULES, Called, plain

CLASSES, TIME = 9, 12
WEIGHTS = torch.linspace(0.2, 1.8, CLASSES)


class Tokens(nn.Module):
    """Logits [B, T, V], or as torch's losses want them, [B, V, T]."""

    def __init__(self, *, last=True):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.output, self.last = nn.Embedding(CLASSES, 8), nn.Linear(8, CLASSES), last

    def forward(self, tokens):
        logits = self.output(self.table(tokens))
        return logits if self.last else logits.transpose(1, 2)


def texts(*lengths, seed=2):
    """Tokens [B, T] and as many targets, of which those after a sequence's end are 0."""
    draw = torch.Generator().manual_seed(seed + sum(lengths))
    inputs, targets = torch.randint(1, CLASSES, (2, len(lengths), TIME), generator=draw)
    for row, length in enumerate(lengths):
        targets[row, length:] = 0
    return [inputs, targets]


SHORT, LONG = texts(1, 2, 1, 2), texts(12, 11, 12, 10)
WHOLE = [torch.cat(parts) for parts in zip(SHORT, LONG, strict=True)]


def stepped(net, loss, batches, **options):
    """Train for one step; the weights after it and the result."""
    said = []
    options = {**QUIET, "say": said.append, "loggers": [], **options}
    result = etude.fit(
        net,
        batches,
        batches,
        loss=loss,
        accumulate=len(batches),
        max_duration="1 epoch",
        optimizer={"type": "sgd"},
        learning_rate=0.5,
        **options,
    )
    return result, said


def by_hand(net, value):
    """The weights after one step of plain SGD on `value`."""
    weights = list(net.parameters())
    return [w - 0.5 * g for w, g in zip(weights, torch.autograd.grad(value, weights), strict=True)]


def close(net, wanted):
    for weight, expected in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(weight.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(ignore_index=0, weight=WEIGHTS),
        partial(F.cross_entropy, ignore_index=0),
        partial(F.cross_entropy, ignore_index=0, weight=WEIGHTS),
    ],
    ids=["module", "weighted module", "function", "weighted function"],
)
def test_a_step_over_batches_has_the_gradient_of_the_mean_over_all_their_tokens(loss, last):
    net, reference = Tokens(last=last), Tokens(last=False)

    result, said = stepped(net, loss, [SHORT, LONG])

    close(net, by_hand(reference, loss(reference(WHOLE[0]), WHOLE[1])))
    with torch.no_grad():
        expected = float(loss(net(WHOLE[0]) if not last else net(WHOLE[0]).transpose(1, 2), WHOLE[1]))
    assert result.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert not [sentence for sentence in said if "mean" in sentence]


def test_tokens_are_the_targets_that_count_whatever_their_weights():
    result, _ = stepped(Tokens(), nn.CrossEntropyLoss(ignore_index=0, weight=WEIGHTS), [SHORT, LONG])

    assert result.progress.tokens == int((WHOLE[1] != 0).sum())


def test_label_smoothing_is_trained_on_and_not_validated():
    smooth = nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.2)
    net, reference = Tokens(), Tokens(last=False)

    result, _ = stepped(net, smooth, [SHORT, LONG])

    close(net, by_hand(reference, smooth(reference(WHOLE[0]), WHOLE[1])))
    with torch.no_grad():
        expected = float(F.cross_entropy(net(WHOLE[0]).transpose(1, 2), WHOLE[1], ignore_index=0))
    assert result.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_step_of_one_batch_has_the_bits_of_torchs_mean():
    torch.manual_seed(3)
    net, reference = nn.Linear(5, 3), nn.Linear(5, 3)
    reference.load_state_dict(net.state_dict())
    inputs, targets = torch.randn(7, 5), torch.rand(7, 3)

    stepped(net, nn.BCEWithLogitsLoss(), [[inputs, targets]])

    wanted = by_hand(reference, nn.BCEWithLogitsLoss()(reference(inputs), targets))
    assert all(torch.equal(w, e) for w, e in zip(net.parameters(), wanted, strict=True))


NUMBERS = {
    nn.BCELoss: torch.rand,
    nn.BCEWithLogitsLoss: torch.rand,
    nn.KLDivLoss: torch.rand,
    nn.PoissonNLLLoss: torch.rand,
    nn.HingeEmbeddingLoss: lambda *shape: torch.rand(*shape).round() * 2 - 1,
    nn.SoftMarginLoss: lambda *shape: torch.rand(*shape).round() * 2 - 1,
    nn.MultiLabelSoftMarginLoss: lambda *shape: torch.rand(*shape).round(),
    nn.MultiMarginLoss: lambda rows, classes: torch.randint(classes, (rows,)),
    nn.MultiLabelMarginLoss: lambda rows, classes: torch.randint(-1, classes, (rows, classes)),
    nn.CrossEntropyLoss: lambda rows, classes: torch.randint(classes, (rows,)),
    nn.NLLLoss: lambda rows, classes: torch.randint(classes, (rows,)),
}
"""What draws the targets of a loss, numbers of any sign unless given."""
CTC = nn.CTCLoss
REDUCTIONS = [(kind, how) for kind, counts in MODULES.items() if kind is not CTC for how in counts]


@pytest.mark.filterwarnings("ignore:reduction. .mean. divides:UserWarning")
@pytest.mark.parametrize(("kind", "reduction"), REDUCTIONS)
def test_two_means_joined_by_their_counts_are_the_mean_of_all(kind, reduction):
    torch.manual_seed(4)
    draw, loss = NUMBERS.get(kind, torch.randn), Called(kind(reduction=reduction))
    outputs = [torch.rand(rows, 4).clamp(0.01, 0.99) for rows in (3, 5)]
    targets = [draw(rows, 4) for rows in (3, 5)]

    parts = [loss(*pair) for pair in zip(outputs, targets, strict=True)]
    whole = loss(torch.cat(outputs), torch.cat(targets))

    joined = sum(part.value * part.count for part in parts) / sum(part.count for part in parts)
    torch.testing.assert_close(joined, whole.value)
    torch.testing.assert_close(whole.value, kind(reduction=reduction)(torch.cat(outputs), torch.cat(targets)))


def test_probabilities_of_classes_are_counted_by_sample():
    torch.manual_seed(5)
    logits, shares = torch.randn(6, CLASSES, 4), torch.rand(6, CLASSES, 4).softmax(1)

    found = Called(nn.CrossEntropyLoss(weight=WEIGHTS))(logits, shares)

    assert found.count == 24


def test_ctc_takes_its_lengths_with_the_targets_and_counts_sequences():
    torch.manual_seed(6)
    scores = torch.randn(10, 5, 4).log_softmax(2)
    targets = torch.randint(1, 4, (5, 3)), torch.full((5,), 10), torch.tensor([3, 1, 2, 3, 2])
    halves = [(scores[:, s], tuple(part[s] for part in targets)) for s in (slice(2), slice(2, 5))]

    parts = [Called(nn.CTCLoss())(*half) for half in halves]

    joined = sum(part.value * part.count for part in parts) / sum(part.count for part in parts)
    torch.testing.assert_close(joined, nn.CTCLoss()(scores, *targets))


def test_weights_of_elements_divide_where_torch_divides_by_them():
    outputs, targets, weight = torch.randn(3, 2), torch.randn(3, 2), torch.rand(3, 2)

    assert Called(partial(F.mse_loss, weight=weight))(outputs, targets).count == pytest.approx(float(weight.sum()))
    assert Called(partial(F.binary_cross_entropy_with_logits, weight=weight))(outputs, weight).count == 6


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(ignore_index=0), partial(F.nll_loss, ignore_index=0)])
def test_a_mean_over_no_target_is_nothing_and_not_nan(loss):
    found = Called(loss)(torch.randn(3, 4, requires_grad=True), torch.zeros(3, dtype=torch.long))

    assert (float(found.value), float(found.count), found.value.requires_grad) == (0.0, 0.0, False)


def test_classes_that_may_be_in_either_dimension_are_refused_unless_another_batch_told():
    square, clear = torch.randn(2, 3, 3), torch.randn(2, 4, 3)
    targets, others = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)
    loss = Called(nn.CrossEntropyLoss())

    with pytest.raises(ConfigError, match="last dimension or, as in torch, in the second"):
        loss(square, targets)
    loss(clear, others)
    found = loss(square, targets)

    torch.testing.assert_close(found.value, F.cross_entropy(square.flatten(0, 1), targets.flatten()))


def test_another_loss_that_is_a_mean_is_said_once_to_be_weighted_by_samples():
    _, said = stepped(Tokens(), lambda x, y: F.cross_entropy(x.transpose(1, 2), y, ignore_index=0), [SHORT, LONG] * 2)

    told = [sentence for sentence in said if "Loss(sum, count)" in sentence]
    assert len(told) == 1
    assert "weighted by the number of samples" in told[0]


@pytest.mark.parametrize("loss", [nn.MSELoss(), F.mse_loss, lambda x, y: (x - y).square().mean()])
def test_a_mean_over_what_is_the_same_in_every_batch_is_not_spoken_of(loss):
    pairs = [[torch.randn(size, 4), torch.randn(size, 2)] for size in (4, 2)]

    _, said = stepped(nn.Linear(4, 2), loss, pairs)

    assert not [sentence for sentence in said if "Loss(sum, count)" in sentence]


def test_a_loss_of_ones_own_that_is_derived_from_torchs_is_not_taken_for_it():
    class Focal(nn.CrossEntropyLoss):
        def forward(self, logits, targets):
            return super().forward(logits, targets) / 2

    found = Called(Focal())(torch.randn(2, 5, 4), torch.zeros(2, 5, dtype=torch.long))

    assert isinstance(found, torch.Tensor)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="sum"), partial(F.cross_entropy, reduction="sum")])
def test_what_is_no_mean_stays_what_it_is(loss):
    assert isinstance(Called(loss)(torch.randn(2, 4), torch.tensor([1, 2])), torch.Tensor)


def test_smoothing_is_taken_from_every_form_and_the_given_one_keeps_it():
    module, function = nn.CrossEntropyLoss(label_smoothing=0.3), partial(F.cross_entropy, label_smoothing=0.3)
    logits, targets = torch.randn(3, 4), torch.tensor([0, 1, 2])
    expected = F.cross_entropy(logits, targets)

    found = [plain(loss)(logits, targets) for loss in (module, function)]

    assert all(torch.equal(value, expected) for value in found)
    assert (module.label_smoothing, function.keywords) == (0.3, {"label_smoothing": 0.3})


def test_every_function_has_the_counts_of_its_module():
    assert len(FUNCTIONS) == len(MODULES)


def test_a_closure_gives_the_loss_in_the_precision_of_the_task():
    class Fit(etude.Task):
        def __init__(self):
            super().__init__()
            torch.manual_seed(7)
            self.net = nn.Linear(3, 1, dtype=torch.float64)

        def training_step(self, batch):
            return (self.net(batch[0]) - batch[1]).square().mean()

        def optimizer_step(self, optimizer, closure):
            self.given = closure()
            optimizer.step()

    torch.manual_seed(8)
    task, pairs = Fit(), [[torch.randn(4, 3).double(), torch.randn(4, 1).double()] for _ in range(2)]
    with torch.no_grad():
        expected = torch.stack([task.training_step(pair) for pair in pairs]).mean()

    etude.Trainer(accumulate=2, max_duration="1 epoch", **QUIET).fit(task, pairs)

    torch.testing.assert_close(task.given, expected, rtol=1e-14, atol=0.0)
