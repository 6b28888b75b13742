"""`etude.fit`: what a batch may be, what a loss may be, and where data may come from."""

import pytest
import torch
import torch.nn.functional as F
from python_face import QUIET, Line, all_ids, batches, fit, ids, line, net, steps_with, trainer, values
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import etude
from etude.base.errors import ConfigError, DataError


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_plain_module_learns_from_inputs_and_targets():
    model = net()

    result = fit(line(48), line(20, seed=9), model, max_duration="30 epochs")

    assert result.metrics["val/loss"] < 0.1
    assert result.progress.epoch == 30
    assert model.training


def test_a_mapping_gives_the_arguments_of_the_module_by_name():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x, scale):
            return self.layer(x) * scale

    data = [{"x": inputs, "scale": torch.ones(()), "targets": targets} for inputs, targets in batches()]
    model = Sum()

    result = fit(data, data, model, max_duration="20 epochs", learning_rate=0.1)

    assert result.metrics["val/loss"] < 0.1
    with pytest.raises(ConfigError, match="needs the key 'targets'; it has x"):
        fit([{"x": torch.ones(2, 4)}], model=Sum())


def test_with_teacher_forcing_the_decoder_gets_all_but_the_last_and_the_loss_all_but_the_first():
    given = []

    class Copy(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(5))

        def forward(self, source, decoder_input):
            given.append((source, decoder_input))
            return F.one_hot(decoder_input, 5).float() + self.bias

    source, target = torch.tensor([[1, 2]]), torch.tensor([[2, 4, 3]])
    wanted = []

    def loss(logits, targets):
        wanted.append(targets)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    fit([(source, target)], model=Copy(), loss=loss, teacher_forcing=True, max_duration="1 step")

    assert torch.equal(given[0][0], source)
    assert torch.equal(given[0][1], target[:, :-1])
    assert torch.equal(wanted[0], target[:, 1:])


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(),
        F.mse_loss,
        lambda logits, targets: (logits - targets).square().mean(),
        etude.losses.MeanSquaredError(),
    ],
)
def test_any_callable_may_be_the_loss_and_equal_ones_train_alike(loss):
    model, reference = net(), net()

    fit(line(), line(8), model, loss=loss)
    fit(line(), line(8), reference, loss=nn.MSELoss())

    assert torch.allclose(weights_of(model), weights_of(reference), atol=1e-6)


def test_ignored_targets_are_neither_counted_nor_trained_on():
    tokens = torch.tensor([[1, 2, 0, 0], [3, 4, 1, 0]])
    model = nn.Embedding(5, 5)

    result = fit([(tokens, tokens)], model=model, loss=etude.losses.CrossEntropy(ignore_index=0), max_duration="1 step")

    assert result.progress.tokens == 5
    assert result.progress.samples == 2


def test_validation_reports_the_loss_without_label_smoothing():
    tokens = torch.tensor([[1, 2, 3]])
    for loss in (etude.losses.CrossEntropy(label_smoothing=0.5), nn.CrossEntropyLoss(label_smoothing=0.5)):
        model = nn.Embedding(5, 5)
        data = [(tokens.flatten(), tokens.flatten())]

        result = fit(data, data, model, loss=loss, max_duration="1 step")

        plain = F.cross_entropy(model(tokens.flatten()).detach(), tokens.flatten())
        assert result.metrics["val/loss"] == pytest.approx(float(plain), rel=1e-6)


def test_a_loss_of_its_own_parameters_is_trained_and_best_weights_still_fit_the_plain_module():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, logits, targets):
            return ((logits - targets).square() * torch.exp(-self.scale) + self.scale).mean()

    loss = Scaled()

    result = fit(line(), line(8), loss=loss)

    assert float(loss.scale.detach()) != 0.0
    result.load_best(net())


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*line().tensors, strict=True)


SOURCES = {
    "dataset": (line, {"batch_size": 4}),
    "loader": (lambda: DataLoader(line(), batch_size=4), {}),
    "list": (batches, {}),
    "function": (lambda: lambda: iter(batches()), {}),
    "iterable dataset": (Stream, {"batch_size": 4}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_data_gives_every_sample_once_an_epoch(kind):
    make, options = SOURCES[kind]
    seen = []

    class Watching(nn.Linear):
        def forward(self, inputs):
            seen.extend(ids((inputs,)))
            return super().forward(inputs)

    result = etude.fit(
        Watching(4, 1), make(), loss=F.mse_loss, max_duration="2 epochs", learning_rate=0.01, **options, **QUIET
    )

    assert result.progress[:4] == (12, 12, 2, 48)
    assert sorted(seen[:24]) == sorted(seen[24:]) == sorted(all_ids())


def test_a_dataset_is_shuffled_anew_each_epoch_and_by_the_seed_alone():
    def orders(**options):
        seen = []

        class Watching(nn.Linear):
            def forward(self, inputs):
                seen.extend(ids((inputs,)))
                return super().forward(inputs)

        fit(model=Watching(4, 1), **options)
        return seen[:24], seen[24:]

    first, second = orders()

    assert first != second
    assert first != all_ids()
    assert orders() == (first, second)
    assert orders(seed=2)[0] != first


def test_a_shuffling_loader_is_replaced_with_a_notice_and_a_batch_size_beside_a_loader_is_refused():
    said = []

    fit(DataLoader(line(), batch_size=4, shuffle=True), say=said.append)

    assert any("replaces the loader's random sampler" in sentence for sentence in said)
    with pytest.raises(ConfigError, match=r"batch_size is 8.*DataLoader"):
        etude.fit(net(), DataLoader(line(), batch_size=4), loss=F.mse_loss, batch_size=8, **QUIET)
    with pytest.raises(ConfigError, match=r"eval_batch_size is 8.*DataLoader"):
        fit(line(), DataLoader(line(8)), eval_batch_size=8)
    with pytest.raises(ConfigError, match="batch_tokens"):
        fit(batch_size=None, batch_tokens=100)


def test_a_one_shot_iterator_is_refused_for_a_second_epoch_only():
    assert fit(iter(batches()), max_duration="1 epoch").progress.step == 6
    with pytest.raises(DataError, match="only once"):
        fit(iter(batches()), max_duration="2 epochs")


def test_batches_that_are_neither_pairs_nor_mappings_are_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"\(inputs, targets\).*list of 3"):
        fit([[torch.ones(2, 4)] * 3])
    with pytest.raises(ConfigError, match="is a mapping"):
        fit([{"a": torch.ones(2)}], teacher_forcing=True)
    with pytest.raises(ConfigError, match="needs a loss"):
        etude.fit(net(), line(), **QUIET)
    with pytest.raises(ConfigError, match=r"torch\.nn\.Module"):
        etude.fit(lambda x: x, line(), loss=F.mse_loss, **QUIET)
    with pytest.raises(ConfigError, match="shape"):
        fit(loss=nn.MSELoss(reduction="none"))


def test_an_iterable_of_unknown_length_takes_no_fractions_of_its_epochs():
    def stream():
        yield from batches()

    for option in ("eval_every", "save_every", "log_every"):
        with pytest.raises(ConfigError, match=rf"{option} is 0\.5 epochs.*steps, batches, samples, tokens, minutes"):
            fit(stream, **{option: "0.5 epochs"})
    with pytest.raises(ConfigError, match=r"max_duration is 1\.5 epochs"):
        fit(stream, max_duration="1.5 epochs")
    with pytest.raises(ConfigError, match=r"eval_every is 5 %"):
        fit(stream, eval_every="5 %")
    with pytest.raises(ConfigError, match="limit"):
        fit(stream, limit_train=0.5)
    with pytest.raises(ConfigError, match="cooldown"):
        fit(stream, learning_rate={"schedule": "cosine", "peak": 0.1})
    assert fit(stream, limit_train=2).progress.step == 4
    result = fit(stream, line(8), eval_every="4 steps", max_duration="9 steps")
    assert steps_with(result, "val/loss") == [4, 8, 9]


def test_history_is_logged_at_every_epochs_last_step_however_rare_log_every():
    result = fit(line(), line(8), log_every="1000 steps", max_duration="3 epochs")

    assert steps_with(result, "train/loss") == [6, 12, 18]
    assert len(values(result, "train/epoch_loss")) == 3
    assert len(values(result, "val/epoch_loss")) == 3


def test_the_epoch_loss_is_the_mean_over_the_samples_of_the_epoch():
    data = TensorDataset(*line(10).tensors)
    model = net()
    with torch.no_grad():
        expected = float((model(data.tensors[0]) - data.tensors[1]).square().mean())

    result = fit(data, data, model, learning_rate=0.0, max_duration="1 epoch")

    assert values(result, "train/epoch_loss")[0] == pytest.approx(expected, rel=1e-5)
    assert result.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_validation_data_that_can_be_read_once_only_is_refused_before_the_first_step():
    with pytest.raises(ConfigError, match="every validation reads it"):
        fit(val=iter(batches()))


def test_an_evaluation_on_nothing_is_refused():
    with pytest.raises(DataError, match="The validation data holds no batch"):
        fit(val=[])
    with pytest.raises(DataError, match="The test data holds no batch"):
        trainer(batch_size=None).test(Line(), [])


class Endless:
    """Samples by number, of which nobody knows how many there are."""

    def __getitem__(self, index):
        return line()[index]


def test_data_without_a_length_and_what_is_no_data_are_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="does not say how many samples it has"):
        fit(type("Unsized", (Endless, Dataset), {})())
    for wrong in ("train.tsv", {"train": batches()}):
        with pytest.raises(ConfigError, match="Data must be a DataLoader"):
            fit(wrong)
