"""`[model] type = "decoder"`: the choices of a decoder-only transformer, its presets and sizes."""

from collections.abc import Mapping
from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from etude.base.config.fields import Switch
from etude.base.config.section import Section, is_off
from etude.model.layers.positions import check_width
from etude.model.layers.spec import Activation, Normalisation
from etude.model.rates import Rate

Choices: TypeAlias = Mapping[str, object]
"""Keys of `[model]` and their values."""
PRESETS: Mapping[str, Choices] = {
    "gpt2": {
        "positions": "learned",
        "normalisation": "layer",
        "activation": "gelu_tanh",
        "bias": True,
        "tie_output": True,
    },
    "llama": {
        "positions": "rotary",
        "normalisation": "rms",
        "activation": "swiglu",
        "bias": False,
        "tie_output": False,
    },
}
"""Sets of choices: Radford et al. 2019; Touvron et al. 2023."""


def _size(layers: int, heads: int, d_model: int, max_positions: int, **more: float) -> Choices:
    return {"layers": layers, "heads": heads, "d_model": d_model, "max_positions": max_positions, **more}


SMALL_SIZES: Mapping[str, Choices] = {
    "tiny": _size(4, 4, 128, 256),
    "small": _size(6, 6, 384, 512),
    "medium": _size(8, 8, 512, 1024),
}
"""Sizes of every preset."""
PRESET_SIZES: Mapping[str, Mapping[str, Choices]] = {
    "gpt2": {
        "124m": _size(12, 12, 768, 1024),
        "355m": _size(24, 16, 1024, 1024),
        "774m": _size(36, 20, 1280, 1024),
        "1.5b": _size(48, 25, 1600, 1024),
    },
    "llama": {
        "110m": _size(12, 12, 768, 1024),
        "1.1b": _size(22, 32, 2048, 2048, kv_heads=4, feedforward=5632),
        "7b": _size(32, 32, 4096, 4096, feedforward=11008),
        "8b": _size(32, 32, 4096, 8192, kv_heads=8, feedforward=14336, rotary_base=500_000.0),
    },
}
"""Sizes of one preset: those of GPT-2, of TinyLlama, Llama 2 and Llama 3."""
Size = Literal["tiny", "small", "medium", "110m", "124m", "355m", "774m", "1.1b", "1.5b", "7b", "8b"]


class DecoderConfig(Section):
    """`[model] type = "decoder"`: a language model of causal attention.

    `preset` and `size` fill in what is not given; without them it is a small one of Llama's kind with a tied output.
    """

    type: Literal["decoder"] = "decoder"
    preset: Switch[Literal["gpt2", "llama"]] = None
    """A set of choices: gpt2 has learned positions, layer norm, gelu_tanh, biases and a tied output; llama rotary
    positions, rms norm, swiglu, no biases and an output of its own."""
    size: Switch[Size] = None
    """A shape: tiny (4 layers of 128), small (6 of 384), medium (8 of 512); of gpt2 124m, 355m, 774m and 1.5b; of
    llama 110m, 1.1b, 7b and 8b."""
    layers: int = Field(4, ge=1)
    """Layers of attention and feed-forward."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide `d_model`."""
    kv_heads: int = Field(4, ge=1)
    """Heads of keys and values, which divide `heads`; default: `heads` (Ainslie et al. 2023)."""
    d_model: int = Field(256, ge=1)
    """Width of the residual stream."""
    feedforward: int = Field(704, ge=1)
    """Width inside the feed-forward layers; default: 4 x d_model, or 8/3 of it, rounded up to a multiple of 64, if
    it is gated."""
    positions: Literal["learned", "rotary", "sinusoidal", "none"] = "rotary"
    """Position encoding: added learned vectors, rotated queries and keys, added sinusoids, or none."""
    max_positions: int = Field(1024, ge=1)
    """Longest sequence of `learned` positions, and the window of generation in tokens."""
    rotary_base: float = Field(10_000.0, gt=1, allow_inf_nan=False)
    """Base of rotary positions: the longest wavelength is about 2 pi times this, in tokens."""
    normalisation: Normalisation = "rms"
    """Layer norm, or rms, its form without mean and bias (Zhang and Sennrich 2019)."""
    norm: Literal["pre", "post"] = "pre"
    """Normalise before each sublayer and at the end, or after each sum."""
    activation: Activation = "swiglu"
    """Inside the feed-forward layers; swiglu is gated (Shazeer 2020), gelu_tanh GPT-2's approximation."""
    bias: bool = False
    """Whether linear layers and layer norms have biases."""
    tie_output: bool = True
    """The output layer is the embedding."""
    qk_norm: bool = False
    """Normalise queries and keys, which keeps scores small at high learning rates (Henry et al. 2020)."""
    vocabulary_multiple: int = Field(1, ge=1)
    """Round the rows of embedding and output up to a multiple, such as 64, for faster products on a GPU. The added
    rows take part in the training loss but not in evaluation, and are never predicted."""
    dropout: Rate = 0.0
    """Dropout on embeddings and on the output of every sublayer."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    activation_dropout: Rate = 0.0
    """Dropout inside the feed-forward layers."""
    embedding_dropout: Switch[Rate] = None
    """Dropout on embeddings; default: `dropout`."""
    layer_drop: Rate = 0.0
    """Probability of leaving out each whole layer, per batch (Fan et al. 2020)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        """Complete what is given by preset, size and the shape itself, so that a run's config says it all."""
        if not isinstance(data, Mapping):
            return data
        preset, size = (None if is_off(data.get(key)) else data.get(key) for key in ("preset", "size"))
        filled: dict[str, object] = {**PRESETS.get(str(preset), {}), **_shape_of(preset, size), **data}
        filled.setdefault("kv_heads", filled.get("heads", 4))
        width = filled.get("d_model", 256)
        if "feedforward" not in filled and isinstance(width, int):
            filled["feedforward"] = _feedforward(width, gated=filled.get("activation", "swiglu") == "swiglu")
        return filled

    @model_validator(mode="after")
    def _size_is_of_the_preset(self) -> Self:
        if self.size is not None and not _shape_of(self.preset, self.size):
            owner = next(name for name, sizes in PRESET_SIZES.items() if self.size in sizes)
            raise ValueError(f'size "{self.size}" is one of the preset "{owner}": set preset = "{owner}"')
        return self

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        check_width(self.positions, self.d_model, self.heads)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads = {self.heads}, but is {self.kv_heads}")
        return self


def _feedforward(width: int, *, gated: bool) -> int:
    """4 x width, or 8/3 of it, up to a multiple of 64, where it is gated."""
    return -(-width * 8 // 192) * 64 if gated else 4 * width


def _shape_of(preset: object, size: object) -> Choices:
    """What a size says; nothing where there is none, or none of that name for this preset."""
    return SMALL_SIZES.get(str(size)) or PRESET_SIZES.get(str(preset), {}).get(str(size), {})
