"""Laws of the counts: parameters, operations, the machine's ceiling."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.flops import count_parameters, flops_per_token, matmul_ceiling
from etude.model.recurrent import Recurrent, RecurrentConfig


@pytest.mark.parametrize(
    "options", [{"preset": "gpt2"}, {"preset": "llama"}, {"kv_heads": 1, "vocabulary_multiple": 64}]
)
def test_operations_are_those_that_torch_counts(options):
    model = Decoder(DecoderConfig(layers=2, heads=2, d_model=64, max_positions=32, **options), 128)
    tokens = torch.zeros(3, 32, dtype=torch.int64)

    with FlopCounterMode(display=False) as counted:
        model(tokens).sum().backward()

    assert flops_per_token(model, 32) * tokens.numel() == pytest.approx(counted.get_total_flops(), rel=1e-6)


def test_operations_of_a_recurrent_model_are_six_for_each_weight_of_a_product():
    model = Recurrent(RecurrentConfig(layers=2, d_model=16, embedding_width=8), 20)

    lstm = 4 * 16 * (8 + 16) + 4 * 16 * (16 + 16)
    assert flops_per_token(model, 1000) == 6 * (lstm + 16 * 8 + 20 * 8)


def test_operations_of_a_module_of_ones_own_are_not_known():
    assert flops_per_token(nn.Linear(2, 2), 8) is None


def test_a_shared_matrix_counts_once_and_as_embedding():
    tied = count_parameters(Decoder(DecoderConfig(layers=1, heads=2, d_model=64), 1000))
    free = count_parameters(Decoder(DecoderConfig(layers=1, heads=2, d_model=64, tie_output=False), 1000))

    assert free.total - tied.total == 64_000
    assert tied.embedding == free.embedding == 64_000
    assert str(tied) == "0.1 M parameters, 53,440 without embeddings"


def test_the_ceiling_of_this_machine_is_measured_once():
    first = matmul_ceiling("cpu", torch.float32)

    assert first > 1e8
    assert matmul_ceiling("cpu", torch.float32) == first


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", (989e12, 494e12)),
        ("NVIDIA H100 PCIe", (756e12, 378e12)),
        ("NVIDIA A100-SXM4-80GB", (312e12, 156e12)),
        ("NVIDIA GeForce RTX 4090", (165e12, 82e12)),
        ("NVIDIA L4", (121e12, 60e12)),
    ],
)
def test_a_known_gpu_has_the_ceiling_of_its_data_sheet(name, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    matmul_ceiling.cache_clear()

    found = matmul_ceiling("cuda:0", torch.bfloat16), matmul_ceiling("cuda:0", torch.float32)

    matmul_ceiling.cache_clear()
    assert found == expected
