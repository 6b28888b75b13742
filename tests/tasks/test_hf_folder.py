"""Folders of models: what is read, what is refused, and that nothing of a folder is ever run."""

import json
import shutil

import pytest
import torch
from hf_folders import CHATML, folder
from safetensors.torch import load_file, save_file

from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.tasks.hf.folder import HfModelConfig, load_parts, longest, stored_parts
from etude.tasks.hf.task import HfTask


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {kind: folder(place / kind, kind) for kind in ("gpt2", "t5")} | {
        "chat": folder(place / "c", "llama", CHATML)
    }


@pytest.fixture
def copied(models, tmp_path):
    """A copy of the chat model, to be spoilt."""
    return shutil.copytree(models["chat"], tmp_path / "copied")


def load(path, **options):
    return load_parts(HfModelConfig(path=path, **options))


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_weights_are_read_in_float32(copied):
    weights = load_file(copied / "model.safetensors")
    save_file(
        {name: value.bfloat16() for name, value in weights.items()}, copied / "model.safetensors", {"format": "pt"}
    )
    change(copied / "config.json", dtype="bfloat16")

    parts = load(copied)

    assert {value.dtype for value in parts.model.parameters()} == {torch.float32}
    found = parts.model.model.embed_tokens.weight
    assert torch.equal(found, weights["model.embed_tokens.weight"].bfloat16().float())


def test_the_kind_is_what_the_config_says_unless_it_is_given(models):
    assert [load(models[kind]).seq2seq for kind in ("gpt2", "t5")] == [False, True]
    assert load(models["t5"], kind="seq2seq").seq2seq
    with pytest.raises(ConfigError, match="is a gpt2, of which there is no sequence-to-sequence model"):
        load(models["gpt2"], kind="seq2seq")


def test_new_weights_are_drawn_from_the_seed(models):
    def weights(seed):
        config = HfModelConfig(path=models["gpt2"], from_scratch=True)
        return load_parts(config, seed=seed).model.transformer.wte.weight

    before = torch.get_rng_state()
    first, again, other = weights(1), weights(1), weights(2)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, load(models["gpt2"]).model.transformer.wte.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_new_weights_need_none_in_the_folder(copied):
    (copied / "model.safetensors").unlink()

    assert load(copied, from_scratch=True).model.lm_head.weight.shape[1] == 32


REMOTE = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.T", None]}


def test_a_folder_that_needs_its_own_code_is_refused_and_the_code_not_run(copied, tmp_path):
    (copied / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    change(copied / "config.json", model_type="own", auto_map=REMOTE)

    with pytest.raises(RefusedError, match="needs its own code") as refused:
        load(copied)

    assert refused.value.exit_code == 7
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_model_that_the_library_knows_is_not_run(copied, tmp_path):
    (copied / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    change(copied / "config.json", auto_map=REMOTE)
    change(copied / "tokenizer_config.json", auto_map=REMOTE)

    assert type(load(copied).model).__module__.startswith("transformers.")
    assert not (tmp_path / "ran").exists()


def test_an_attention_that_would_be_fetched_is_refused(copied):
    change(copied / "config.json", _attn_implementation="somebody/kernel")

    with pytest.raises(RefusedError, match="needs foreign code"):
        load(copied)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt"])
def test_weights_as_pickles_are_refused(copied, name):
    (copied / "model.safetensors").rename(copied / name)

    with pytest.raises(RefusedError, match=f"keeps its weights in {name}, and Etude reads no pickle"):
        load(copied)


def test_an_index_that_leads_out_of_the_folder_is_refused(copied):
    (copied / "model.safetensors").rename(copied.parent / "outside.safetensors")
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))

    with pytest.raises(RefusedError, match="not a safetensors file of the folder"):
        load(copied)


def test_weights_that_are_not_all_there_are_refused(copied):
    weights = load_file(copied / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copied / "model.safetensors", {"format": "pt"})

    with pytest.raises(StorageError, match=r"lack model\.norm\.weight \(1 in all\)"):
        load(copied)


def test_damaged_weights_are_named(copied):
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(StorageError, match=r"model\.safetensors cannot be used"):
        load(copied)


BROKEN = {
    "no weights": (lambda path: (path / "model.safetensors").unlink(), ConfigError, "holds no model.safetensors"),
    "no config": (lambda path: (path / "config.json").unlink(), ConfigError, "it has no config.json"),
    "no folder": (shutil.rmtree, ConfigError, "is not a folder"),
    "no json": (lambda path: (path / "config.json").write_text("{"), StorageError, r"config\.json cannot be read"),
    "a list": (lambda path: (path / "config.json").write_text("[]"), StorageError, "it is not a JSON object"),
    "unknown": (lambda path: change(path / "config.json", model_type="x"), ConfigError, "transformers does not know"),
    "no text": (
        lambda path: change(path / "config.json", model_type="vit"),
        ConfigError,
        "there is no causal language",
    ),
    "bad value": (lambda path: change(path / "config.json", hidden_size="a"), StorageError, "cannot be used"),
    "quantised": (lambda path: change(path / "config.json", quantization_config={"a": 1}), ConfigError, "quantised"),
    "no tokenizer": (lambda path: [f.unlink() for f in path.glob("*token*")], ConfigError, "holds no tokenizer"),
    "bad tokenizer": (lambda path: (path / "tokenizer.json").write_text("{}"), ConfigError, "holds no tokenizer"),
    "endless": (lambda path: change(path / "tokenizer_config.json", eos_token=None), ConfigError, "needs an eos_token"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_told_in_a_sentence(name, copied):
    spoil, kind, said = BROKEN[name]
    spoil(copied)

    with pytest.raises(kind, match=said) as told:
        load(copied)

    assert "\n" not in str(told.value)


def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_refused(copied, models):
    for file in models["t5"].glob("*token*"):
        shutil.copy(file, copied)
    parts = load(copied)
    parts.model.resize_token_embeddings(300)

    with pytest.raises(ConfigError, match="do not belong together"):
        HfTask(parts)


def test_the_answers_end_of_a_template_ends_predictions(models):
    task = HfTask.from_folder(models["chat"])

    ends = task.model.generation_config.eos_token_id

    assert task.tokenizer.convert_ids_to_tokens(ends) == ["</s>", "<|im_end|>"]


def test_what_a_run_keeps_makes_the_same_model_without_its_weights(models, tmp_path):
    parts = load(models["chat"])
    parts.save(tmp_path / "kept")

    again = stored_parts(tmp_path / "kept")

    assert again.tokenizer.chat_template == CHATML
    assert again.model.config.to_dict() | {"_name_or_path": ""} == parts.model.config.to_dict() | {"_name_or_path": ""}
    assert not list((tmp_path / "kept").glob("*.safetensors"))
    again.model.load_state_dict(parts.model.state_dict())
    parts.save(tmp_path / "kept")  # is kept as it is


def test_the_bound_of_positions_is_the_models(models):
    assert [longest(load(models[kind]).model) for kind in ("gpt2", "t5")] == [64, None]


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_folder_without_a_tokenizer_is_told_of_as_such(kind, models, tmp_path):
    copied = shutil.copytree(models[kind], tmp_path / "copied")
    for path in copied.glob("tokenizer*"):
        path.unlink()

    with pytest.raises(ConfigError, match=r"model\.path .*copied holds no tokenizer"):
        load(copied)
