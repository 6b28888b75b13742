"""What tiny runs of every task, and the examples, end in: sha256 of weights and of the record without the clock.

A change that should change no number is shown by two tables, of the package before it and after:

    PYTHONPATH=../before/src .venv/bin/python tests/acceptance/same_bits.py before.json
    PYTHONPATH=src .venv/bin/python tests/acceptance/same_bits.py after.json --against before.json

With `--begun-by SRC` the first half of each run is taken by the package in SRC, and the rest by this one.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLOCK = ("_seconds", "_per_second", "_memory")
HALF, WHOLE = 10, 20
RATE = '{ schedule = "linear", peak = 1e-2, warmup = "3 steps", over = "40 steps" }'
TRAIN = f"""
[optimizer]
learning_rate = {RATE}
[train]
max_duration = "{WHOLE} steps"
eval_every = "4 steps"
save_every = "5 steps"
log_every = "1 step"
batch_size = 4
clip_grad = 1.0
ema_decay = 0.9
device = "cpu"
"""
TRANSLATION = """
[task]
type = "translation"
beam_size = 2
[data]
train = "pairs.tsv"
val = "pairs.val.tsv"
[tokenizer]
type = "char"
[model]
d_model = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 32
dropout = {dropout}
[loss]
label_smoothing = 0.1
"""
DROPOUT = '{ schedule = "linear", from = 0.0, to = 0.2, over = "15 steps" }'
DECODER = """
[task]
type = "language_model"
max_tokens = 8
[data]
train = "texts.txt"
split = [0.9, 0.1]
split_by = "position"
block_size = {block}
{data}
[tokenizer]
type = "bpe"
vocab_size = 300
[model]
type = "decoder"
layers = 1
heads = 2
d_model = 16
dropout = 0.1
"""
BLOCK = '{ schedule = "stairs", values = [16, 24], every = "1 epoch" }'
LSTM = """
[task]
type = "language_model"
[data]
train = "texts.txt"
split = [0.9, 0.1]
split_by = "position"
order = "contiguous"
block_size = 24
[tokenizer]
type = "char"
[model]
type = "lstm"
layers = 1
d_model = 16
embedding_width = 16
dropout = 0.2
[loss.terms.l2]
type = "l2"
weight = { schedule = "linear", from = 1e-3, to = 0.0, over = "20 steps" }
[train]
tbptt_steps = 5
carry_hiddens = true
accumulate = 2
parameter_noise = 0.01
[train.freeze]
"embedding.*" = { schedule = "stairs", values = [1, 0], every = "6 steps" }
"""
HF = """
[task]
type = "hf"
max_tokens = 8
[model]
type = "hf"
path = "model"
[data]
train = "answers.jsonl"
val = "answers.jsonl"
"""
TOKENS = {"train.batch_tokens": 64, "train.accumulate": 2}
RUNS = {
    "translation": (TRANSLATION.format(dropout=0.1), {}),
    "translation, by tokens, two workers, dropout by schedule": (
        TRANSLATION.format(dropout=DROPOUT),
        {**TOKENS, "data.workers": 2, "data.max_length": 30, "data.order": "easy_first"},
    ),
    "language model, decoder": (DECODER.format(block=24, data=""), {}),
    "language model, decoder, packed documents, blocks by schedule": (
        DECODER.format(block=BLOCK, data='packing = "documents"\ndocument_separator = "\\n\\n"'),
        {"data.workers": 1},
    ),
    "language model, LSTM with carried state": (LSTM, {}),
    "hf": (HF, {"train.ema_decay": False}),
    "hf, packed": (HF, {"train.ema_decay": False, "data.packing": "documents", "data.block_size": 32}),
}


def source() -> str:
    """Where the package lies that is measured; absolute, for the runs are made in another folder."""
    return str(Path(os.environ.get("PYTHONPATH", ROOT / "src")).resolve())


def data(folder: Path) -> None:
    """Write what all of them train on."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 5))) for _ in range(60)]

    def sentence() -> str:
        return " ".join(draw.choices(words, k=draw.randint(1, 5)))

    for name, count in (("pairs", 120), ("pairs.val", 16)):
        lines = [f"{text}\t{text[::-1].upper()}\n" for text in (sentence() for _ in range(count))]
        (folder / f"{name}.tsv").write_text("source\ttarget\n" + "".join(lines))
    documents = [". ".join(sentence() for _ in range(draw.randint(2, 9))) for _ in range(80)]
    (folder / "texts.txt").write_text("\n\n".join(documents))
    asked = [{"prompt": text, "answer": text.upper()} for text in (sentence() for _ in range(60))]
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))


def model(folder: Path) -> None:
    """Write a tiny GPT-2, as save_pretrained leaves it."""
    import tokenizers
    import torch
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<s>", "</s>"]
    library.train_from_iterator(
        ["abc"], trainers.BpeTrainer(vocab_size=260, special_tokens=specials, initial_alphabet=alphabet)
    )
    named = dict(zip(("pad_token", "bos_token", "eos_token"), specials, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=library, **named).save_pretrained(folder)
    torch.manual_seed(3)
    ids = {"vocab_size": library.get_vocab_size(), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, **ids)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def digest(content: bytes) -> str:
    """Sixteen digits of a sha256."""
    return hashlib.sha256(content).hexdigest()[:16]


def without_clock(row: dict) -> dict:
    """A row without what depends on the clock."""
    return {key: value for key, value in row.items() if not key.startswith("time/") and not key.endswith(CLOCK)}


def found(run: Path) -> dict[str, str]:
    """What a run has ended in."""
    last = run / "checkpoints" / "last"
    rows = [without_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("model", "ema", "optimizer", "state")
    files = {name: last / f"{name}.safetensors" for name in names}
    weights = {name: digest(file.read_bytes()) for name, file in files.items() if file.exists()}
    return {**weights, "metrics": digest(json.dumps(rows).encode()), "rows": str(len(rows))}


def train(folder: Path, config: str, options: dict, package: str, steps: int = WHOLE) -> None:
    """Train through the shell, by the package that lies in `package`."""
    words = [f"--{key}={json.dumps(value)}" for key, value in options.items()]
    words.append(f'--train.max_duration="{steps} steps"')
    command = [sys.executable, "-m", "etude", "train", config, *words]
    environment = os.environ | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1", "CI": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def runs(folder: Path, begun_by: str | None) -> dict[str, dict[str, str]]:
    """Every tiny run: in one go, cut in its middle, or begun by another package."""
    table = {}
    for number, (name, (text, options)) in enumerate(RUNS.items()):
        own, _, tail = text.partition("\n[train]")
        (folder / f"run{number}.toml").write_text(own + TRAIN + tail)
        for how in ("begun by another",) if begun_by else ("in one go", "cut and resumed"):
            stem = f"{'other' if begun_by else how.split()[0]}{number}"
            given = {**options, "run.name": stem}
            if how != "in one go":
                train(folder, f"run{number}.toml", given, begun_by or source(), HALF)
            train(folder, f"run{number}.toml", given, source())
            table[name if begun_by else f"{name}: {how}"] = found(folder / "runs" / stem)
    return table


EXAMPLE = """
import hashlib, importlib.util, json, sys
sys.path.insert(0, sys.argv[2])
from same_bits import digest, without_clock
import etude
import torch
import etude.app
trained = []
fit = etude.Trainer.fit
def recorded(self, task, *given, **named):
    result = fit(self, task, *given, **named)
    held = b"".join(value.detach().cpu().numpy().tobytes() for value in task.state_dict().values())
    rows = json.dumps([without_clock(row) for row in result.history]).encode()
    trained.append({"model": digest(held), "metrics": digest(rows), "rows": str(len(result.history))})
    return result
etude.Trainer.fit = recorded
spec = importlib.util.spec_from_file_location("example", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.main(), file=sys.stderr)
open("trained.json", "w").write(json.dumps(trained))
"""


def examples(folder: Path) -> dict[str, dict[str, str]]:
    """Every script of examples/, with all that it trains."""
    table = {}
    for path in sorted((ROOT / "examples").glob("*.py")):
        place = folder / path.stem
        place.mkdir()
        command = [sys.executable, "-c", EXAMPLE, str(path), str(Path(__file__).parent)]
        environment = os.environ | {"PYTHONPATH": source(), "OMP_NUM_THREADS": "1", "CI": "1"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{path.name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        for number, one in enumerate(json.loads((place / "trained.json").read_text())):
            table[f"examples/{path.name}, fit {number + 1}"] = one
    return table


def main() -> None:
    """Write the table, and compare it with another."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--begun-by", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--no-examples", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="etude-bits-") as temporary:
        folder = Path(temporary)
        data(folder)
        model(folder / "model")
        table = runs(folder, given.begun_by)
        if not given.no_examples and not given.begun_by:
            table |= examples(folder)
    given.output.write_text(json.dumps(table, indent=1))
    cut = {name: one for name, one in table.items() if name.endswith(": cut and resumed")}
    wrong = [name for name, one in cut.items() if one != table[name.replace("cut and resumed", "in one go")]]
    if given.against is not None:
        before = json.loads(given.against.read_text())
        for name, one in table.items():
            old = before.get(name) or before.get(f"{name}: in one go")
            unlike = [key for key, value in one.items() if old is None or old.get(key) != value]
            told = "UNLIKE " + ", ".join(unlike) if unlike else "equal"
            sys.stdout.write(f"{told:<10} {one['model']} {one['metrics']} {name}\n")
            wrong += [name] * bool(unlike)
    if wrong:
        sys.exit(f"Not equal: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
