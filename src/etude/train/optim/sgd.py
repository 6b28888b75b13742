"""torch's SGD, fused, whose parameters may come to be trained at different times."""

from typing import Any

import torch
from torch import Tensor


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`; the momentum of what is new, or was frozen so far, begins at zero beside that of others.

    torch's fused kernel takes the momentum of all parameters or of none. At zero, and without dampening, the first
    step is the one that torch takes without a momentum.
    """

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        momentum_buffer_list: list[Tensor | None],
    ) -> bool:
        has_sparse: bool = super()._init_group(group, params, grads, momentum_buffer_list)  # type: ignore[no-untyped-call]
        missing = [index for index, momentum in enumerate(momentum_buffer_list) if momentum is None]
        if group["fused"] and len(missing) < len(params):
            for index in missing:
                momentum_buffer_list[index] = torch.zeros_like(params[index])
        return has_sparse
