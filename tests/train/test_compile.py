"""A compiled model trains, evaluates and resumes as the plain one, under the same names."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import etude

pytestmark = pytest.mark.skipif(not torch._dynamo.is_dynamo_supported(), reason="torch.compile is not supported here")
QUIET = {"device": "cpu", "precision": "float32", "progress": False, "log_every": "1 step"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)
        self.calls = 0

    def forward(self, inputs):
        return self.second(self.first(inputs).tanh()).mean(1)


def batches():
    """Sequences of many lengths."""
    draw = torch.Generator().manual_seed(5)
    lengths = [3, 5, 9, 4, 7, 6, 8, 2]
    return [(torch.randn(4, n, 4, generator=draw), torch.randn(4, 1, generator=draw)) for n in lengths]


def fit(folder=None, **options):
    said = []
    model = Net()
    options = {
        "max_duration": "1 epoch",
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "run_dir": folder,
        **QUIET,
        **options,
    }
    result = etude.fit(model, batches(), batches()[:2], loss=F.mse_loss, say=said.append, **options)
    return model, result, said


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.acceptance
def test_a_compiled_model_trains_as_the_plain_one_and_lengths_are_not_compiled_anew():
    plain, expected, _ = fit()
    torch._dynamo.utils.counters.clear()

    compiled, result, said = fit(compile=True)

    assert torch.allclose(
        torch.cat([p.flatten() for p in plain.parameters()]),
        torch.cat([p.flatten() for p in compiled.parameters()]),
        atol=1e-5,
    )
    assert result.metrics["val/loss"] == pytest.approx(expected.metrics["val/loss"], rel=1e-4)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert any("torch.compile compiles Net" in one for one in said)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs <= 3  # training, evaluation, and one more where a dimension of 1 or 2 is its own


def test_a_compiled_run_goes_on_where_it_stood(tmp_path):
    whole, _, _ = fit(compile=True)
    fit(tmp_path, compile=True, max_duration="3 steps", loggers=[])
    resumed, _, _ = fit(tmp_path, compile=True, loggers=[])

    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
