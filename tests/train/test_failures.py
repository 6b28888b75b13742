"""What a step may fail by is said in a sentence that names what it was and what to do."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude
from etude.base.errors import ConfigError, DataError
from etude.train.step.failures import in_memory

QUIET = {"say": lambda _: None, "progress": False, "device": "cpu", "precision": "float32", "loggers": []}


def data(samples=16):
    draw = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(samples, 3, generator=draw), torch.randn(samples, 1, generator=draw))


def fit(net, train, loss=nn.functional.mse_loss, **options):
    settings = {"max_duration": "2 epochs", "learning_rate": 0.1, **QUIET, **options}
    if not isinstance(train, DataLoader | list):
        settings.setdefault("batch_size", 8)
    return etude.fit(net, train, settings.pop("val", None), loss=loss, **settings)


NO_COUNTS = [
    float("nan"),
    -3,
    float("inf"),
    None,
    "4",
    torch.tensor([1, 2]),
    torch.tensor(float("nan")),
    torch.tensor(-1),
]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("count", NO_COUNTS, ids=str)
def test_what_is_no_count_is_refused(count, accumulate):
    with pytest.raises(ConfigError, match="The count of the loss 'loss' must be a number from 0 on, but is"):
        fit(nn.Linear(3, 1), data(), lambda x, y: etude.Loss((x - y).sum(), count), accumulate=accumulate)


def test_the_count_of_a_named_loss_of_a_validation_is_refused_by_its_name():
    class Named(etude.Task):
        def validation_step(self, batch):
            return {"size": etude.Loss(batch[0].sum(), -1)}

    with pytest.raises(ConfigError, match="The count of the loss 'size' must be"):
        etude.Trainer(**QUIET).validate(Named(), data())


@pytest.mark.parametrize("form", [lambda value: value, lambda value: etude.Loss(value, 8), lambda value: {"a": value}])
def test_a_complex_loss_is_refused(form):
    with pytest.raises(ConfigError, match="must be a real number, but is complex"):
        fit(nn.Linear(3, 1), data(), lambda x, y: form(torch.fft.fft(x - y).mean()))


class Wide(nn.Module):
    """Asks for more memory than there is, in training or in evaluation."""

    def __init__(self, error=None, *, training=True):
        super().__init__()
        self.layer, self.error, self.when = nn.Linear(3, 1), error, training

    def forward(self, inputs):
        if self.training is self.when and self.error is not None:
            raise self.error
        return self.layer(inputs) + (torch.zeros(1 << 46).sum() if self.training is self.when else 0)


OUT_OF_MEMORY = [
    None,
    MemoryError(),
    MemoryError("Unable to allocate 8 TiB"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=repr)
def test_an_allocation_that_fails_names_the_shape_of_the_batch_and_what_to_lower(error):
    with pytest.raises(ConfigError, match=r"not enough memory for a batch of \[8, 3\] and \[8, 1\].*Lower batch_size"):
        fit(Wide(error), data())
    with pytest.raises(ConfigError, match=r"not enough memory for a batch of \[8, 3\].*Lower eval_batch_size"):
        fit(Wide(error, training=False), data(), val=data())


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="own trouble"):
        fit(Wide(RuntimeError("own trouble")), data())


def test_memory_that_does_not_suffice_for_what_is_made_is_said_too():
    with pytest.raises(ConfigError, match=r"not enough memory for the model .*Lower the size"), in_memory("the model"):
        torch.zeros(1 << 46)
    with pytest.raises(RuntimeError, match="else"), in_memory("the model"):
        raise RuntimeError("something else")


def test_batch_normalisation_over_a_last_batch_of_one_is_said_with_what_to_do():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    with pytest.raises(ConfigError, match=r"one value a channel.*\[1, 3\] and \[1, 1\].*drop_last.*batch_size"):
        fit(net, data(9))


EMPTY = {
    "list": list,
    "dataset": lambda: data(0),
    "loader": lambda: DataLoader(data(0), batch_size=8),
    "loader that drops the last": lambda: DataLoader(data(3), batch_size=8, drop_last=True),
}


@pytest.mark.parametrize("options", [{}, {"learning_rate": None}, {"max_duration": "5 steps"}])
@pytest.mark.parametrize("kind", EMPTY)
def test_an_empty_training_set_is_called_empty(kind, options):
    with pytest.raises(DataError, match="The training data holds no batch"):
        fit(nn.Linear(3, 1), EMPTY[kind](), **options)


def table(sparse):
    return nn.Sequential(nn.Embedding(9, 1, sparse=sparse), nn.Flatten(0))


LAYOUTS = {
    "dense to SparseAdam": (False, lambda p: torch.optim.SparseAdam(list(p))),
    "sparse to AdamW": (True, None),
    "sparse to Adafactor": (True, "adafactor"),
    "sparse and decay": (True, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1)),
    "sparse and decay in Adagrad": (True, lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1)),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_an_optimizer_that_does_not_take_the_layout_of_a_gradient_is_told_of(kind):
    sparse, optimizer = LAYOUTS[kind]
    pairs = [[torch.tensor([1, 2, 2]), torch.randn(3)]]

    with pytest.raises(ConfigError, match=r"The optimizer cannot take these gradients: .*SparseAdam"):
        fit(table(sparse), pairs, optimizer=optimizer, learning_rate=None)


@pytest.mark.parametrize(
    "said",
    [
        "could not create a primitive descriptor for the LSTM forward propagation primitive",
        "\"baddbmm\" not implemented for 'Half'",
    ],
)
def test_a_precision_that_a_device_does_not_compute_in_is_told_of(said):
    with pytest.raises(ConfigError, match=r"cannot be computed in this precision on this device: .*Take float32"):
        fit(Wide(RuntimeError(said)), data())
