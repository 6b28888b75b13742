"""An LSTM in an exported program: one operator, for torch.export writes torch's own out step by step, for one length.

Legend: B batch, T time, I width of inputs, M width, G the four gates: 4 M.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


@torch.library.custom_op("etude::lstm", mutates_args=())
def lstm(
    inputs_BTI: Tensor,
    hidden_1BM: Tensor,
    cell_1BM: Tensor,
    input_GI: Tensor,
    hidden_GM: Tensor,
    input_bias_G: Tensor,
    hidden_bias_G: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `nn.LSTM` of one layer and direction gives, batch first: outputs [B, T, M], and its state after them."""
    weights = [input_GI, hidden_GM, input_bias_G, hidden_bias_G]
    outputs, hidden, cell = torch._VF.lstm(  # noqa: SLF001 - what nn.LSTM calls  # type: ignore[attr-defined]
        inputs_BTI, (hidden_1BM, cell_1BM), weights, True, 1, 0.0, False, False, True
    )
    return outputs, hidden, cell


@lstm.register_fake
def _(inputs_BTI: Tensor, hidden_1BM: Tensor, cell_1BM: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    del weights
    outputs = inputs_BTI.new_empty(inputs_BTI.size(0), inputs_BTI.size(1), hidden_1BM.size(2))
    return outputs, torch.empty_like(hidden_1BM), torch.empty_like(cell_1BM)


def run_exported(
    layer: nn.RNNBase, inputs_BTI: Tensor, state: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What an LSTM of one layer and direction gives, by the operator: [B, T, M], and the state [B, M] behind it."""
    zeros_BM = inputs_BTI.new_zeros(inputs_BTI.size(0), layer.hidden_size)
    hidden_BM, cell_BM = (zeros_BM, zeros_BM) if state is None else state
    outputs, hidden, cell = lstm(inputs_BTI, hidden_BM[None], cell_BM[None], *layer.all_weights[0])
    return outputs, (hidden[0], cell[0])


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export` takes as `custom_translation_table`: the operator as ONNX's LSTM."""
    from onnxscript import opset18

    op: Any = opset18

    def gates(value: Any) -> Any:
        """From torch's order of the gates (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
        width = value.shape[0] // 4
        order = [gate * width + unit for gate in (0, 3, 1, 2) for unit in range(width)]
        return op.Unsqueeze(op.Gather(value, op.Constant(value_ints=order), axis=0), op.Constant(value_ints=[0]))

    def translated(inputs: Any, hidden: Any, cell: Any, input_: Any, recurrent: Any, bias: Any, other: Any) -> Any:
        biases = op.Concat(gates(bias), gates(other), axis=1)
        steps, width = op.Transpose(inputs, perm=[1, 0, 2]), int(recurrent.shape[1])
        outputs, hidden, cell = op.LSTM(
            steps, gates(input_), gates(recurrent), biases, None, hidden, cell, hidden_size=width
        )
        return op.Transpose(op.Squeeze(outputs, op.Constant(value_ints=[1])), perm=[1, 0, 2]), hidden, cell

    return {torch.ops.etude.lstm.default: translated}
