"""A network that grows under torch.compile learns as without it, and ends in the same bits wherever it is cut."""

import pytest
import torch
from growing import files, losses, rows, run, stripped, write_place

pytestmark = [
    pytest.mark.acceptance,  # each network is compiled anew
    pytest.mark.skipif(not torch._dynamo.is_dynamo_supported(), reason="torch.compile is not supported here"),
]
COMPILED = {
    "model": '{ type = "parts.py:build_model" }',
    "train.compile": "true",
    "train.batch_size": 20,
    "train.max_duration": "3 epochs",
}
"""Two steps an epoch, of a network that has another layer in the third."""


def test_a_compiled_network_that_grows_is_as_one_that_is_not_compiled_and_goes_on_in_the_same_bits(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path)

    straight = run(tmp_path, "straight", **COMPILED)
    cut = run(tmp_path, "cut", [5], **COMPILED)
    plain = run(tmp_path, "plain", **{**COMPILED, "train.compile": "false"})

    assert files(cut) == files(straight)
    assert stripped(rows(cut)) == stripped(rows(straight))
    assert losses(straight) == pytest.approx(losses(plain), rel=1e-4)
