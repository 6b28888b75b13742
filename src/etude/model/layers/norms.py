"""Normalisation of layers, of the residual stream and of heads."""

from torch import nn

from etude.model.layers.spec import LayerSpec

EPSILON = 1e-6
"""What it adds to the variance, in encoders and what decodes for them."""


def make_norm(spec: LayerSpec, width: int | None = None) -> nn.Module:
    """The normalisation that `spec` names, of the model's width unless given."""
    if spec.normalisation == "rms":
        return nn.RMSNorm(width or spec.width, eps=spec.epsilon)
    return nn.LayerNorm(width or spec.width, eps=spec.epsilon, bias=spec.bias)


def final_norm(spec: LayerSpec) -> nn.Module:
    """What ends a stack: post-norm layers end normalised, pre-norm ones leave that to it."""
    return make_norm(spec) if spec.norm_first else nn.Identity()
