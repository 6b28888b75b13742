"""A decoder of Etude's as a GPT-2 or Llama of the `transformers` library: config, weights, tokenizer.

Legend: M width, V vocabulary, D width of a head.
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
import torch
from torch import Tensor

from etude.base.errors import ConfigError, EtudeError
from etude.data.tokens.tokenizers import BOS, EOS, PAD, SPECIALS, UNK, OwnTokenizer, Tokenizer
from etude.model.decoder import EPSILON, Decoder
from etude.model.decoder_config import DecoderConfig
from etude.tasks.transformers_library import quiet, transformers
from etude.train.evaluate import evaluating

GPT2_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new"}
PROBE = 16
"""Tokens on which both models must agree before anything is written."""
CLOSE = 1e-3
"""How far apart logits may be there, as a share of the largest: rounding leaves much less, a mistake much more."""
FOREIGN = tuple(f"<|{name.strip('<>')}|>" for name in SPECIALS)
"""What Etude's special tokens are called beside those of a foreign tokenizer."""


def exported_decoder(model: Decoder, tokenizer: Tokenizer) -> tuple[Any, Any]:
    """The model of the `transformers` library with the same logits, and its tokenizer.

    Raises ConfigError naming the key of `[model]` that neither GPT-2 nor Llama can express.
    """
    order = _order(model, tokenizer)
    config = model.config
    family = {"learned": _gpt2, "rotary": _llama}.get(config.positions)
    if family is None:
        raise ConfigError(
            f'model.positions = "{config.positions}" cannot be exported: GPT-2 has learned ones, Llama rotary ones.'
        )
    weights = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
    made = family(model, weights, order)
    special = {name: order.index(token) for name, token in (("pad", PAD), ("bos", EOS), ("eos", EOS))}
    for name, token in special.items():
        setattr(made.config, f"{name}_token_id", token)
    made.generation_config = transformers().GenerationConfig(
        pad_token_id=special["pad"],
        bos_token_id=special["bos"],
        eos_token_id=special["eos"],
        suppress_tokens=sorted(order.index(token) for token in (PAD, UNK, BOS)),
    )
    _check(model, made, order)
    return made, _tokenizer(tokenizer, model.config.max_positions)


def _order(model: Decoder, tokenizer: Tokenizer) -> list[int]:
    """Which of Etude's ids each exported id is: a foreign tokenizer keeps its ids, and ours come behind them."""
    if tokenizer.size != model.vocabulary:
        raise ConfigError(f"The run's tokenizer has {tokenizer.size} tokens, but its model {model.vocabulary}.")
    own = isinstance(tokenizer, OwnTokenizer)
    first = 0 if own else len(SPECIALS)
    return [*range(first, model.vocabulary), *range(first)]


def _gpt2(model: Decoder, weights: Mapping[str, Tensor], order: list[int]) -> Any:
    """GPT-2 keeps its matrices the other way round (`Conv1D`), and has biases, which may be zero."""
    config = model.config
    _expressible(config, "GPT-2", {"norm": "pre", "qk_norm": False, "normalisation": "layer", "kv_heads": config.heads})
    if config.activation not in GPT2_ACTIVATIONS:
        raise _refused("activation", config.activation, "GPT-2", ", ".join(GPT2_ACTIVATIONS))
    library = transformers()
    shape = library.GPT2Config(
        vocab_size=len(order),
        n_positions=config.max_positions,
        n_embd=config.d_model,
        n_layer=config.layers,
        n_head=config.heads,
        n_inner=config.feedforward,
        activation_function=GPT2_ACTIVATIONS[config.activation],
        layer_norm_epsilon=EPSILON,
        tie_word_embeddings=config.tie_output,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    names: dict[str, Tensor] = {
        "transformer.wte.weight": weights["embedding.weight"][order],
        "transformer.wpe.weight": weights["positions.weight"],
        **_normed("transformer.ln_f", weights, "final_norm", config.d_model, model.scaling.logits),
    }
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}", f"transformer.h.{layer}"
        names |= _normed(f"{theirs}.ln_1", weights, f"{ours}.attention_norm", config.d_model)
        names |= _normed(f"{theirs}.ln_2", weights, f"{ours}.feedforward_norm", config.d_model)
        query = model.scaling.scores, config.d_model
        names |= _turned(f"{theirs}.attn.c_attn", weights, f"{ours}.attention.projection", *query)
        names |= _turned(f"{theirs}.attn.c_proj", weights, f"{ours}.attention.output")
        names |= _turned(f"{theirs}.mlp.c_fc", weights, f"{ours}.feedforward.inner")
        names |= _turned(f"{theirs}.mlp.c_proj", weights, f"{ours}.feedforward.outer")
    return _made(library.GPT2LMHeadModel, shape, names | _head(config, weights, order))


def _llama(model: Decoder, weights: Mapping[str, Tensor], order: list[int]) -> Any:
    """Llama turns halves as Etude does, so only what Etude computes in one product is taken apart."""
    config = model.config
    needed = {"norm": "pre", "qk_norm": False, "normalisation": "rms", "activation": "swiglu"}
    _expressible(config, "Llama", needed)
    library = transformers()
    width = config.d_model // config.heads
    shape = library.LlamaConfig(
        vocab_size=len(order),
        hidden_size=config.d_model,
        intermediate_size=config.feedforward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=width,
        max_position_embeddings=config.max_positions,
        rope_theta=config.rotary_base,
        rms_norm_eps=EPSILON,
        hidden_act="silu",
        attention_bias=config.bias,
        mlp_bias=config.bias,
        tie_word_embeddings=config.tie_output,
    )
    names = {
        "model.embed_tokens.weight": weights["embedding.weight"][order],
        "model.norm.weight": weights["final_norm.weight"] * model.scaling.logits,
    }
    sizes = [config.d_model, config.kv_heads * width, config.kv_heads * width]
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        names[f"{theirs}.input_layernorm.weight"] = weights[f"{ours}.attention_norm.weight"]
        names[f"{theirs}.post_attention_layernorm.weight"] = weights[f"{ours}.feedforward_norm.weight"]
        for kind in ("weight", "bias") if config.bias else ("weight",):
            query, key, value = torch.split(weights[f"{ours}.attention.projection.{kind}"], sizes)
            gate, up = weights[f"{ours}.feedforward.inner.{kind}"].chunk(2)
            names |= {
                f"{theirs}.self_attn.q_proj.{kind}": query * model.scaling.scores,
                f"{theirs}.self_attn.k_proj.{kind}": key,
                f"{theirs}.self_attn.v_proj.{kind}": value,
                f"{theirs}.self_attn.o_proj.{kind}": weights[f"{ours}.attention.output.{kind}"],
                f"{theirs}.mlp.gate_proj.{kind}": gate,
                f"{theirs}.mlp.up_proj.{kind}": up,
                f"{theirs}.mlp.down_proj.{kind}": weights[f"{ours}.feedforward.outer.{kind}"],
            }
    return _made(library.LlamaForCausalLM, shape, names | _head(config, weights, order))


def _expressible(config: DecoderConfig, family: str, needed: Mapping[str, object]) -> None:
    for key, value in needed.items():
        given = vars(config)[key]
        if given != value:
            raise _refused(key, given, family, value)


def _refused(key: str, value: object, family: str, needed: object) -> ConfigError:
    given, wanted = (json.dumps(one) for one in (value, needed))
    return ConfigError(
        f"model.{key} = {given} cannot be exported: its positions make it a {family} of transformers, which has "
        f"{wanted}."
    )


def _head(config: DecoderConfig, weights: Mapping[str, Tensor], order: list[int]) -> dict[str, Tensor]:
    """The output layer; the embedding, where they are one."""
    return {"lm_head.weight": weights["embedding.weight" if config.tie_output else "output.weight"][order]}


def _normed(theirs: str, weights: Mapping[str, Tensor], ours: str, width: int, scale: float = 1.0) -> dict[str, Tensor]:
    """A layer norm, times `scale`; the bias it may lack is zero."""
    bias = weights.get(f"{ours}.bias", torch.zeros(width))
    return {f"{theirs}.weight": weights[f"{ours}.weight"] * scale, f"{theirs}.bias": bias * scale}


def _turned(
    theirs: str, weights: Mapping[str, Tensor], ours: str, scale: float = 1.0, rows: int = 0
) -> dict[str, Tensor]:
    """A linear layer as GPT-2's, its first `rows` outputs times `scale`; the bias it may lack is zero."""
    weight = weights[f"{ours}.weight"].clone()
    bias = weights.get(f"{ours}.bias", torch.zeros(len(weight))).clone()
    weight[:rows] *= scale
    bias[:rows] *= scale
    return {f"{theirs}.weight": weight.T.contiguous(), f"{theirs}.bias": bias}


def _made(kind: Any, shape: Any, names: Mapping[str, Tensor]) -> Any:
    with quiet(), torch.random.fork_rng(devices=[]):
        made = kind(shape).float().eval()
    made.load_state_dict(dict(names))  # strict: a name too many or too few is found here
    return made


@torch.no_grad()
def _check(model: Decoder, made: Any, order: list[int]) -> None:
    """Let both models read the same tokens before anything is written."""
    ids = torch.randint(len(order), (1, min(PROBE, model.window)), generator=torch.Generator().manual_seed(1))
    with evaluating(model):
        ours = model(torch.tensor(order)[ids].to(model.output_weight.device))[..., order].float().cpu()
    theirs = made(input_ids=ids).logits
    apart = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-6))
    if not apart < CLOSE:
        raise EtudeError(f"The exported model's logits differ from the run's by {apart:.2g}, so nothing was written.")


def _tokenizer(tokenizer: Tokenizer, longest: int) -> Any:
    """The tokenizer of the library: the same ids, in front of a text the token that ends the one before."""
    library = tokenizers.Tokenizer.from_str(tokenizer.text)
    own = isinstance(tokenizer, OwnTokenizer)
    pad, unk, _, eos = SPECIALS if own else FOREIGN
    if not own:
        clash = [name for name in FOREIGN if library.token_to_id(name) is not None]
        ordinary = tokenizer.size - len(SPECIALS)
        if clash or library.get_vocab_size(with_added_tokens=True) != ordinary:
            why = f"it has a token {clash[0]}" if clash else "its ids have gaps"
            raise ConfigError(f"The run's tokenizer cannot be exported: {why}.")
        library.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in FOREIGN])
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{eos} $A", pair=f"{eos} $A {eos} $B:1", special_tokens=[(eos, library.token_to_id(eos))]
    )
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=library,
        pad_token=pad,
        unk_token=unk,
        bos_token=eos,
        eos_token=eos,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )
