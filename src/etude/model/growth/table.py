"""What the parameters and buffers of torch's own modules are made up of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from etude.model.layers.growing import Dim, GrowthParts, Part, classes, gives, head, heads, takes, taps

Known: TypeAlias = Callable[[Any], GrowthParts]

GATES: Mapping[str, int] = {"LSTM": 4, "GRU": 3}
"""Gates of recurrent layers; others have one."""


def known_parts(module: nn.Module) -> GrowthParts:
    """The parts of a module of torch's or of a class derived from it, some perhaps of names that it lacks; nothing
    for any other.
    """
    for kind, parts in TABLE.items():
        if isinstance(module, kind):
            return parts(module)
    return {}


def _linear(module: nn.Linear) -> GrowthParts:
    outputs = gives(module.out_features)
    return {"weight": (outputs, takes(module.in_features)), "bias": (outputs,)}


def _bilinear(module: nn.Bilinear) -> GrowthParts:
    outputs = gives(module.out_features)
    return {
        "weight": (outputs, takes(module.in1_features), takes(module.in2_features)),
        "bias": (outputs,),
    }


def _embedding(module: nn.Embedding | nn.EmbeddingBag) -> GrowthParts:
    return {"weight": (classes(module.num_embeddings), gives(module.embedding_dim))}


def _convolution(module: _ConvNd) -> GrowthParts:
    outputs, inputs = (_channels(count, module.groups) for count in (module.out_channels, module.in_channels))
    within = Part(inputs.size // module.groups, rigid=inputs.rigid)
    return {"weight": (gives(outputs), takes(within), *_taps(module)), "bias": (gives(outputs),)}


def _transposed(module: _ConvTransposeNd) -> GrowthParts:
    outputs, inputs = (_channels(count, module.groups) for count in (module.out_channels, module.in_channels))
    within = Part(outputs.size // module.groups, rigid=outputs.rigid)
    return {"weight": (takes(inputs), gives(within), *_taps(module)), "bias": (gives(outputs),)}


def _channels(count: int, groups: int) -> Part:
    """Channels, of which those of a group stay together."""
    return Part(count, rigid=count // groups if groups > 1 else 0)


def _taps(module: _ConvNd) -> Sequence[Dim]:
    sizes = zip(module.kernel_size, _before(module), strict=True)
    return [taps(size, before) for size, before in sizes]


def _before(module: _ConvNd) -> Sequence[int]:
    """The places of padding in front of each dimension, in steps of the dilation."""
    dilation = module.dilation
    match module.padding:
        case "same":
            return [(size - 1) // 2 for size in module.kernel_size]
        case "valid":
            return [0] * len(dilation)
    padding = cast("Sequence[int]", module.padding)
    return [size // step for size, step in zip(padding, dilation, strict=True)]


def _over_shape(module: nn.LayerNorm | nn.RMSNorm) -> GrowthParts:
    dims = [gives(Part(size, group=size)) for size in module.normalized_shape]
    return dict.fromkeys(("weight", "bias"), dims)


def _group_norm(module: nn.GroupNorm) -> GrowthParts:
    channels = module.num_channels
    return dict.fromkeys(("weight", "bias"), (gives(Part(channels, group=channels // module.num_groups)),))


def _of_channels(module: _NormBase) -> GrowthParts:
    dims = (gives(module.num_features),)
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), dims)


def _prelu(module: nn.PReLU) -> GrowthParts:
    return {"weight": (gives(module.num_parameters),)}


def _recurrent(module: nn.RNNBase) -> GrowthParts:
    gates = gives(*[module.hidden_size] * GATES.get(module.mode, 1))
    hidden = module.proj_size or module.hidden_size
    directions = 1 + module.bidirectional
    parts: dict[str, Sequence[Dim]] = {}
    for layer in range(module.num_layers):
        inputs = takes(*[hidden] * directions) if layer else takes(module.input_size)
        for suffix in ("", "_reverse")[:directions]:
            end = f"l{layer}{suffix}"
            parts |= {f"weight_ih_{end}": (gates, inputs), f"weight_hh_{end}": (gates, takes(hidden))}
            parts |= {f"bias_ih_{end}": (gates,), f"bias_hh_{end}": (gates,)}
            parts[f"weight_hr_{end}"] = (gives(hidden), takes(module.hidden_size))
    return parts


def _cell(module: nn.RNNCellBase) -> GrowthParts:
    hidden = module.hidden_size
    gates = gives(*[hidden] * (module.weight_ih.size(0) // hidden))
    return {
        "weight_ih": (gates, takes(module.input_size)),
        "weight_hh": (gates, takes(hidden)),
        "bias_ih": (gates,),
        "bias_hh": (gates,),
    }


def _attention(module: nn.MultiheadAttention) -> GrowthParts:
    width = module.embed_dim
    of_heads = heads(module.num_heads, head(module.head_dim))
    fused = gives(of_heads, of_heads, of_heads)
    one, added = gives(of_heads), gives(1)
    return {
        "in_proj_weight": (fused, takes(width)),
        "in_proj_bias": (fused,),
        "q_proj_weight": (one, takes(width)),
        "k_proj_weight": (one, takes(module.kdim)),
        "v_proj_weight": (one, takes(module.vdim)),
        "bias_k": (added, added, one),
        "bias_v": (added, added, one),
        "out_proj.weight": (gives(width), takes(of_heads)),
        "out_proj.bias": (gives(width),),
    }


TABLE: Mapping[type[nn.Module] | tuple[type[nn.Module], ...], Known] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    (nn.Embedding, nn.EmbeddingBag): _embedding,
    _ConvTransposeNd: _transposed,
    _ConvNd: _convolution,
    (nn.LayerNorm, nn.RMSNorm): _over_shape,
    nn.GroupNorm: _group_norm,
    _NormBase: _of_channels,
    nn.PReLU: _prelu,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _cell,
    nn.MultiheadAttention: _attention,
}
"""By class, what gives the parts."""
