"""Encoders of frames can be exported once for batches and sequences of any size."""

import logging

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.encoders import build_encoder
from etude.model.layers.exported_lstm import onnx_translations

AUTO = torch.export.Dim.AUTO
ANY = ({0: AUTO, 1: AUTO}, {0: AUTO})
SMALL = {"d_model": 8, "layers": 1, "subsample_channels": 2, "subsampling": 2}
KINDS = {
    "blstm": BlstmConfig(**SMALL, projection=5),
    "conformer": ConformerConfig(**SMALL, heads=2, feedforward=8, kernel=3, causal=True, chunk=3, left_context=1),
    "cnn": CnnConfig(**{**SMALL, "subsample": "stack"}, kernel=3),
}
# torch's own export warns of what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def inputs_of(batch, time):
    draw = torch.Generator().manual_seed(time)
    return torch.randn(batch, time, 4, generator=draw), torch.randint(time + 1, (batch,), generator=draw)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_exported_encoder_takes_any_batch_and_any_length(kind):
    encoder = build_encoder(KINDS[kind], 4).eval()

    exported = torch.export.export(encoder, inputs_of(3, 20), dynamic_shapes=ANY).module()

    for batch, time in ((1, 3), (2, 7), (4, 600)):
        features, lengths = inputs_of(batch, time)
        hidden, after = exported(features, lengths)
        expected, counts = encoder(features, lengths)
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)
        assert torch.equal(after, counts)


@torch.no_grad()
def test_onnx_runs_an_lstm_with_its_own_operator(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    encoder = build_encoder(KINDS["blstm"], 4).eval()
    for name, parameter in encoder.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    program = torch.export.export(encoder, inputs_of(3, 20), dynamic_shapes=ANY)

    torch.onnx.export(program, custom_translation_table=onnx_translations(), verbose=False).save(tmp_path / "net.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    features, lengths = inputs_of(2, 9)
    names = [given.name for given in session.get_inputs()]
    hidden, _ = session.run(None, dict(zip(names, (features.numpy(), lengths.numpy()), strict=True)))
    np.testing.assert_allclose(hidden, encoder(features, lengths)[0].numpy(), rtol=0, atol=1e-5)
