"""New layers that leave a residual stream as it is.

What such a layer adds is zero. Where a layer ends normalised (post-norm, or a conformer's last norm), two norms follow
each other: scale and shift of the norm below move to the end of the new layer, for a norm of what is normalised
already, and neither scaled nor shifted, changes nothing but rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

from etude.model.growth.declared import stored_in
from etude.model.growth.naming import NewLayer
from etude.model.layers.blocks import AddsToStream, CausalLayer, EndsNormalised


@final
@dataclass
class Stream:
    """What is done with parameters of the new network so that its new layers do nothing at first."""

    fills: dict[str, float] = field(default_factory=dict)
    """What parameters are filled with."""
    origins: dict[str, str] = field(default_factory=dict)
    """By parameter: the one whose old values it takes."""
    quiet: list[str] = field(default_factory=list)
    """The paths of layers that do nothing at first."""


def quietened(new: nn.Module, layers: Sequence[NewLayer]) -> Stream:
    """What lets new layers do nothing, as far as they can; `layers` from below."""
    found = _Quiet(new)
    for layer in layers:
        found.take(layer)
    return found.stream


class _Quiet:
    def __init__(self, new: nn.Module) -> None:
        self.stream = Stream()
        self._modules = dict(new.named_modules(remove_duplicate=False))
        self._names: dict[int, str] = {id(one.tensor): one.name for one in stored_in(new)}
        self._carriers: dict[str, nn.Module] = {}
        """By a layer's path: the norm that its last norm's scale and shift have moved to."""

    def take(self, layer: NewLayer) -> None:
        module = self._modules.get(layer.path, nn.Identity())  # of a recurrent layer no module has the path
        added = _added(module)
        for weight in added:
            self._silence(self._names[id(weight)])
        if added and self._hand_on(_norms(module), layer):
            self.stream.quiet.append(layer.path)

    def _silence(self, name: str) -> None:
        """Let a matrix, with its bias, add nothing."""
        self._fill(name, 0.0)
        self._fill(f"{name.removesuffix('weight')}bias", 0.0)

    def _fill(self, name: str, value: float) -> None:
        if name in self._names.values():
            self.stream.fills[name] = value

    def _hand_on(self, norms: Sequence[nn.Module], layer: NewLayer) -> bool:
        """Let the last norm go on with scale and shift of the layer below, and the others have none."""
        if not norms:
            return True
        if layer.below is None:
            return False
        below = f"{layer.stack}{layer.below}"
        carrier = self._carriers.get(below) or _norms(self._modules[below])[-1]
        for norm in (*norms[:-1], carrier):
            self._neutralise(norm)
        self._move(carrier, norms[-1])
        self._carriers[below] = norms[-1]
        return True

    def _neutralise(self, norm: nn.Module) -> None:
        """Let a norm neither scale nor shift."""
        for kind, parameter in norm.named_parameters():
            self.stream.fills[self._names[id(parameter)]] = float(kind == "weight")

    def _move(self, old: nn.Module, new: nn.Module) -> None:
        """Let a norm have scale and shift of another one."""
        before = dict(old.named_parameters())
        for kind, parameter in new.named_parameters():
            origin = self._names[id(before[kind])]
            self.stream.origins[self._names[id(parameter)]] = self.stream.origins.pop(origin, origin)


def _added(layer: nn.Module) -> list[Tensor]:
    """The matrices of a layer whose products are added to its residual stream."""
    match layer:
        case AddsToStream():
            return layer.residual_weights()
        case CausalLayer():  # it is no AddsToStream, for its first values follow the depth by themselves
            return [layer.attention.output.weight, layer.feedforward.outer.weight]
        case nn.TransformerEncoderLayer():
            return [layer.self_attn.out_proj.weight, layer.linear2.weight]
        case nn.TransformerDecoderLayer():
            return [layer.self_attn.out_proj.weight, layer.multihead_attn.out_proj.weight, layer.linear2.weight]
    return []


def _norms(layer: nn.Module) -> list[nn.Module]:
    """The norms of a layer that lie on the stream itself."""
    match layer:
        case EndsNormalised():
            return layer.ending_norms()
        case nn.TransformerEncoderLayer(norm_first=False):
            return [layer.norm1, layer.norm2]
        case nn.TransformerDecoderLayer(norm_first=False):
            return [layer.norm1, layer.norm2, layer.norm3]
    return []
