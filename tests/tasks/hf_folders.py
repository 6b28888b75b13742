"""Tiny models of the transformers library in folders, as save_pretrained leaves them, and samples to train them on."""

import json
import re

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from etude.tasks.transformers_library import quiet

WORDS = re.findall(r"\w+", "the cat sat on a mat and the dog ran to the red house over one green hill")
TEXTS = [" ".join(WORDS[start : start + size]) + "." for start in range(0, 12, 2) for size in (3, 5, 9)]
PAIRS = [(f"say {word} twice", f"{word} {word}") for word in WORDS]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def tokenizer(template=None, *, begins=False, ends=False):
    """A byte-level BPE tokenizer; one that begins a text with <s>, or ends it with </s>, where asked."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIALS, initial_alphabet=sorted(alphabet), show_progress=False
    )
    library.train_from_iterator([*TEXTS, *(f"{a} {b} user assistant" for a, b in PAIRS)], trainer)
    parts = [*(["<s>"] if begins else []), "$A", *(["</s>"] if ends else [])]
    if begins or ends:
        library.post_processor = tokenizers.processors.TemplateProcessing(
            single=" ".join(parts), special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, **dict(zip(("pad_token", "bos_token", "eos_token"), SPECIALS, strict=False))
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}) if template else None
    made.chat_template = template
    return made


def model(kind, vocabulary):
    """A tiny model with weights drawn from one seed."""
    ids = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(3)
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **ids)
        return transformers.GPT2LMHeadModel(config)
    if kind == "llama":
        config = transformers.LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **ids,
        )
        return transformers.LlamaForCausalLM(config)
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, dropout_rate=0.1, **ids
    )
    return transformers.T5ForConditionalGeneration(config)


def folder(path, kind, template=None):
    """A folder of a tiny model and its tokenizer."""
    words = tokenizer(template, begins=kind == "llama", ends=kind == "t5")
    with quiet():
        model(kind, len(words)).save_pretrained(path)
        words.save_pretrained(path)
    return path


def write_lines(path, samples):
    """JSON lines of `samples`."""
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def texts(path):
    return write_lines(path, [{"text": text} for text in TEXTS])


def answers(path):
    return write_lines(path, [{"prompt": prompt, "answer": answer} for prompt, answer in PAIRS])
