"""Exported folders: what transformers makes of them is what Etude computes."""

import json
import warnings

import pytest
import tokenizers
import torch
import transformers
from safetensors import safe_open

import etude
from etude.__main__ import main
from etude.app.export import export, whole
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.data.tokens.config import BpeConfig
from etude.data.tokens.tokenizers import EOS, tokenizer_from
from etude.data.tokens.training import train_tokenizer
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.initialisers import InitConfig
from etude.search.sampling import generate
from etude.tasks.hf.task import HfTask
from etude.tasks.hf.type import HF
from etude.tasks.language_model.export import FOREIGN
from etude.tasks.language_model.task import LanguageModelConfig, LanguageModelTask
from etude.tasks.language_model.type import LANGUAGE_MODEL

TEXTS = [
    f"the {a} house stands on a {b} hill, and the {b} dog ran over it" for a in ("red", "green") for b in ("old", "new")
]
PROMPTS = ["the red", "a new hill", "and"]
SMALL = {"layers": 2, "heads": 4, "d_model": 32, "max_positions": 48, "feedforward": 40}

SHAPES = {
    "gpt2": {"preset": "gpt2"},
    "gpt2, untied, no biases, gelu": {"preset": "gpt2", "tie_output": False, "bias": False, "activation": "gelu"},
    "gpt2, padded vocabulary, relu": {"preset": "gpt2", "vocabulary_multiple": 64, "activation": "relu"},
    "llama": {"preset": "llama"},
    "llama, grouped heads, tied": {"preset": "llama", "kv_heads": 2, "tie_output": True, "rotary_base": 500.0},
    "llama, biases": {"preset": "llama", "bias": True, "vocabulary_multiple": 64},
}
"""Everything that is said apart from the sizes."""


@pytest.fixture(scope="module")
def own():
    """A tokenizer that Etude trained."""
    return train_tokenizer(BpeConfig(vocab_size=300), TEXTS)


@pytest.fixture(scope="module")
def foreign():
    """A tokenizer of the tokenizers library, whose ids begin at 0."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    library.train_from_iterator(TEXTS, trainer)
    return tokenizer_from(library.to_str(), name="foreign")


def decoder(tokenizer, *, init=None, **options):
    """A task whose weights are far from their small beginnings, so that nothing is lost in rounding."""
    torch.manual_seed(4)
    model = Decoder(DecoderConfig(**{**SMALL, **options}), tokenizer.size, init)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    config = LanguageModelConfig(temperature=0.0, max_tokens=20)
    return LanguageModelTask(model, config, tokenizer=tokenizer).eval()


def export_task(task, folder, kind=LANGUAGE_MODEL):
    """Export to the library alone: Etude's own form would need a run."""
    whole(folder, lambda part: kind.export(task, None, part))


def loaded(folder):
    options = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval(), tokenizer


@pytest.mark.parametrize("name", SHAPES)
def test_an_exported_decoder_gives_the_same_logits_and_greedy_texts(name, own, tmp_path):
    task = decoder(own, **SHAPES[name])

    export_task(task, tmp_path / "out")

    model, tokenizer = loaded(tmp_path / "out")
    for prompt, found in zip(PROMPTS, task.predict(PROMPTS), strict=True):
        given = tokenizer(prompt, return_tensors="pt")
        ids = given["input_ids"]
        assert ids[0].tolist() == task.tokens_of(prompt)
        with torch.no_grad():
            assert torch.allclose(model(ids).logits, task.model(ids), atol=1e-5, rtol=1e-5)
        written = model.generate(**given, max_new_tokens=20, do_sample=False)[0]
        greedy = generate(task.model, ids.tolist(), task.config.options())[0][0].tokens
        assert [token for token in written[ids.size(1) :].tolist() if token != EOS] == greedy
        assert tokenizer.decode(written, skip_special_tokens=True) == prompt + found[0].text


@pytest.mark.parametrize("preset", ["gpt2", "llama"])
def test_a_foreign_tokenizer_keeps_its_ids_and_ours_come_behind(preset, foreign, tmp_path):
    task = decoder(foreign, preset=preset)

    export_task(task, tmp_path / "out")

    model, tokenizer = loaded(tmp_path / "out")
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    ours = torch.tensor([[EOS, *foreign.encode(TEXTS[0])]])
    ordinary = foreign.size - 4
    assert ids[0, 1:].tolist() == [token - 4 for token in ours[0, 1:].tolist()]
    assert tokenizer.eos_token == FOREIGN[EOS]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits[..., :ordinary], task.model(ours)[..., 4:], atol=1e-5, rtol=1e-5)
    found = next(task.predict([TEXTS[0]]))[0].text
    written = model.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.size(1) :]
    assert tokenizer.decode(written, skip_special_tokens=True) == found


@pytest.mark.parametrize("preset", ["gpt2", "llama"])
def test_what_mup_scales_is_in_the_exported_weights(preset, own, tmp_path):
    task = decoder(own, preset=preset, init=InitConfig(scheme="mup", base_width=8, base_head_width=2))

    export_task(task, tmp_path / "out")

    ids = torch.tensor([own.encode(TEXTS[1])])
    with torch.no_grad():
        assert torch.allclose(loaded(tmp_path / "out")[0](ids).logits, task.model(ids), atol=1e-5, rtol=1e-5)


REFUSED = {
    'model.positions = "sinusoidal"': {"positions": "sinusoidal"},
    'model.positions = "none"': {"positions": "none"},
    'model.norm = "post"': {"preset": "llama", "norm": "post"},
    "model.qk_norm = true": {"preset": "llama", "qk_norm": True},
    'model.activation = "swiglu"': {"preset": "gpt2", "activation": "swiglu"},
    'model.activation = "gelu"': {"preset": "llama", "activation": "gelu"},
    'model.normalisation = "rms"': {"preset": "gpt2", "normalisation": "rms"},
    'model.normalisation = "layer"': {"preset": "llama", "normalisation": "layer"},
    "model.kv_heads = 2": {"preset": "gpt2", "kv_heads": 2},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_neither_gpt2_nor_llama_has_is_refused_naming_the_key(key, own, tmp_path):
    with pytest.raises(ConfigError, match=key):
        export_task(decoder(own, **REFUSED[key]), tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_a_tuned_model_of_the_library_is_saved_as_it_saves_itself(own, tmp_path):
    export_task(decoder(own, preset="llama"), tmp_path / "first")
    task = HfTask.from_folder(tmp_path / "first", max_tokens=6)
    with torch.no_grad():
        task.model.lm_head.weight.mul_(-1.5)

    export_task(task, tmp_path / "tuned", HF)

    again = HfTask.from_folder(tmp_path / "tuned", max_tokens=6)
    assert list(again.predict(PROMPTS)) == list(task.predict(PROMPTS))
    assert torch.equal(again.model.lm_head.weight, task.model.lm_head.weight)


TINY = """
[task]
type = "translation"
max_target_length = 6
[data]
train = "train.tsv"
val = "train.tsv"
[tokenizer]
type = "char"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
[train]
max_duration = "2 steps"
ema_decay = 0.9
sanity_batches = 0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run."""
    place = tmp_path_factory.mktemp("run")
    (place / "train.tsv").write_text("source\ttarget\n" + "one two\ttwo one\n" * 8)
    (place / "tiny.toml").write_text(TINY)
    etude.train(place / "tiny.toml", {"run.dir": str(place / "runs"), "train.device": "cpu"})
    return place / "runs" / "tiny"


def test_another_model_is_exported_as_etude_reads_it(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "out")]) == 0

    out = tmp_path / "out"
    lines = ["one", "two one"]
    assert etude.Run(out).predict(lines, weights=str(out)) == etude.Run(run).predict(lines)
    assert sorted(path.name for path in out.iterdir()) == ["config.toml", "model.safetensors", "tokenizers"]
    assert str(run) not in (out / "config.toml").read_text()
    assert f"etude predict {out} --checkpoint {out}" in capsys.readouterr().err
    with (
        safe_open(out / "model.safetensors", "pt") as ours,
        safe_open(run / "checkpoints" / "best" / "ema.safetensors", "pt") as kept,
    ):
        assert all(torch.equal(ours.get_tensor(name), kept.get_tensor(name)) for name in kept.keys())  # noqa: SIM118


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "note").write_text("mine")

    assert main(["export", str(run), str(tmp_path)]) == 2

    assert "not empty: give a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_an_empty_folder_is_filled(run, tmp_path):
    export(run, tmp_path)

    assert (tmp_path / "model.safetensors").is_file()


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.tasks.own_form.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))

    with pytest.raises(StorageError, match=r"out: No space left on device"):
        export(run, tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_written_anew(run, tmp_path):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "model.safetensors").write_text("half")

    export(run, tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_weights_are_those_that_are_asked_for(run, tmp_path):
    with pytest.raises(StorageError, match="has no checkpoint '77'"):
        export(run, tmp_path / "out", weights="77")


def test_a_run_with_code_of_its_own_is_refused(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text('[run]\nname = "own"\n[task]\ntype = "math:prod"\n')

    with pytest.raises(RefusedError, match="runs code of its own"):
        export(folder, tmp_path / "out", allow_code=False)


def test_the_config_says_how_texts_begin_and_end(own, tmp_path):
    export_task(decoder(own, preset="llama"), tmp_path / "out")

    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (said["bos_token_id"], said["eos_token_id"], said["pad_token_id"]) == (EOS, EOS, 0)


def test_nothing_of_the_librarys_is_let_through(own, tmp_path, monkeypatch, capfd):
    heard = []

    def noisy(method):
        def call(self, *args, **kwargs):
            transformers.utils.logging.get_logger("transformers.tokens").warning("a line of the library's")
            warnings.warn("a warning of the library's", stacklevel=1)
            heard.append(method)
            return method(self, *args, **kwargs)

        return call

    tokens = transformers.PreTrainedTokenizerFast
    monkeypatch.setattr(tokens, "save_pretrained", noisy(tokens.save_pretrained))
    monkeypatch.setattr(tokens, "__init__", noisy(tokens.__init__))

    export_task(decoder(own, preset="llama"), tmp_path / "out")

    assert len(heard) == 2
    assert "".join(capfd.readouterr()) == ""
