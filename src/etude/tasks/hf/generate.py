"""Generation and scoring through a `transformers` model's own forward and `generate`.

Shapes: B prompts, P the longest prompt, N the longest continuation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from etude.base.errors import DataError
from etude.base.randomness import seed_of
from etude.tasks.hf.folder import longest
from etude.tasks.transformers_library import LibraryModel, LibraryTokenizer, quiet, transformers

STARTS = ("decoder_start_token_id", "bos_token_id", "forced_bos_token_id", "forced_eos_token_id")
"""What a model's own generation config says of how a continuation begins and is forced to end."""


class Options(NamedTuple):
    """How a continuation is chosen."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 takes the likeliest token each time, or searches with a beam."""
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    beam_size: int = 1
    length_penalty: float = 1.0
    seed: int = 1


def generated(
    model: LibraryModel,
    tokenizer: LibraryTokenizer,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    seq2seq: bool,
) -> list[list[list[int]]]:
    """For each prompt what may follow it, best first, without special ids at the end: `beam_size` of them.

    Prompts stand side by side behind their padding, which changes nothing. With a temperature each is drawn alone,
    from a seed that is a function of the prompt and `options.seed`. Raises DataError for a prompt that leaves no room.
    """
    if not options.temperature:
        return _generate(model, tokenizer, prompts, options, seq2seq=seq2seq)
    found = []
    for prompt in prompts:
        seed = seed_of(options.seed, "generate", *prompt)
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            found += _generate(model, tokenizer, [prompt], options, seq2seq=seq2seq)
    return found


def _generate(
    model: LibraryModel,
    tokenizer: LibraryTokenizer,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    seq2seq: bool,
) -> list[list[list[int]]]:
    pad, width = pad_id(tokenizer), max(map(len, prompts))
    room = _room_of_target(model, width, options.max_tokens) if seq2seq else _room(model, width, options.max_tokens)
    inputs_BP = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    attention_BP = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device
    )
    if seq2seq:  # an encoder may place its positions by their number, so padding stands behind
        inputs_BP, attention_BP = _behind(inputs_BP, attention_BP, prompts, pad)
    with quiet(), torch.no_grad():
        whole = model.generate(
            input_ids=inputs_BP,
            attention_mask=attention_BP,
            generation_config=_config(model, tokenizer, options, room),
        )
    begin = 1 if seq2seq else width
    rows = [_ended(row, ends(model, tokenizer)) for row in whole[:, begin:].tolist()]
    return [rows[at : at + options.beam_size] for at in range(0, len(rows), options.beam_size)]


def log_probabilities(logits_BTV: Tensor, targets_BT: Tensor, ignored: int) -> Tensor:
    """The summed log-probability of each row's targets, in nats: [B], float64."""
    kept = targets_BT != ignored
    chosen = torch.log_softmax(logits_BTV.float(), -1).gather(-1, targets_BT.where(kept, 0)[..., None])[..., 0]
    return chosen.double().where(kept, 0.0).sum(1)


def pad_id(tokenizer: LibraryTokenizer) -> int:
    """The id that fills rows; where the tokenizer has none, the end's, which attention hides all the same."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def ends(model: LibraryModel, tokenizer: LibraryTokenizer) -> set[int]:
    """The ids that end a continuation: the tokenizer's, and those of the model's own generation config."""
    own = _stored(model).get("eos_token_id")
    match own:
        case None:
            listed = []
        case list():
            listed = own
        case _:
            listed = [own]
    return {int(tokenizer.eos_token_id), *map(int, listed)}


def _stored(model: LibraryModel) -> Mapping[str, Any]:
    """What the model's own generation config sets."""
    return dict(vars(model.generation_config))


def _config(model: LibraryModel, tokenizer: LibraryTokenizer, options: Options, room: int) -> Any:
    draws = options.temperature > 0
    sampling = (
        {"temperature": options.temperature, "top_k": options.top_k or 0, "top_p": options.top_p} if draws else {}
    )
    stored = _stored(model)
    started = {name: stored[name] for name in STARTS if stored.get(name) is not None}
    return transformers().GenerationConfig(
        max_new_tokens=room,
        do_sample=draws,
        num_beams=options.beam_size,
        num_return_sequences=options.beam_size,
        length_penalty=options.length_penalty,
        repetition_penalty=options.repetition_penalty,
        eos_token_id=sorted(ends(model, tokenizer)),
        pad_token_id=pad_id(tokenizer),
        **started,
        **sampling,
    )


def _room(model: LibraryModel, width: int, wanted: int) -> int:
    bound = longest(model)
    if bound is None:
        return wanted
    if width >= bound:
        raise DataError(f"A prompt of {width} tokens leaves no room in the model's {bound} positions: shorten it.")
    return min(wanted, bound - width)


def _room_of_target(model: LibraryModel, width: int, wanted: int) -> int:
    """The tokens that a target may have: its positions are its own, of which its beginning takes one."""
    bound = longest(model)
    if bound is None:
        return wanted
    if width > bound:
        raise DataError(f"A prompt of {width} tokens does not fit the model's {bound} positions: shorten it.")
    return min(wanted, bound - 1)


def _behind(
    inputs_BP: Tensor, attention_BP: Tensor, prompts: Sequence[Sequence[int]], pad: int
) -> tuple[Tensor, Tensor]:
    for row, prompt in enumerate(prompts):
        inputs_BP[row] = pad
        inputs_BP[row, : len(prompt)] = torch.tensor(list(prompt), device=inputs_BP.device)
        attention_BP[row] = 0
        attention_BP[row, : len(prompt)] = 1
    return inputs_BP, attention_BP


def _ended(row: list[int], stops: set[int]) -> list[int]:
    """A continuation up to and with the id that ends it."""
    at = next((place for place, token in enumerate(row) if token in stops), None)
    return row if at is None else row[: at + 1]
