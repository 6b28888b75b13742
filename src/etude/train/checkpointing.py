"""Activation checkpointing: what a layer has computed is not kept for the backward pass, but computed again in it."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from etude.base.errors import ConfigError
from etude.train.world.sharding import layers_of


def checkpoint_activations(task: nn.Module) -> int:
    """Let every layer of the task's stacks keep its inputs alone; how many layers there are.

    What a layer draws, it draws again (its dropout is the same), so that gradients keep their bits; the price is one
    more forward pass. Raises ConfigError for a task without a stack of layers.
    """
    layers = layers_of(task)
    if not layers:
        raise ConfigError(
            "distributed.checkpoint_activations needs a model with a stack of layers (an nn.ModuleList), but the task "
            "has none; leave it out."
        )
    for layer in layers:
        layer.forward = _again(layer, layer.forward)
    return len(layers)


def _again(layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return recomputed
