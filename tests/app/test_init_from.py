"""`init.from`: a run begins with weights of other models, says which, and goes on without them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from python_face import Line, line, trainer
from safetensors.torch import load_file, save_file
from texts_of_runs import CONFIG, folder, rows, train, weights

import etude
from etude.__main__ import main
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.tasks.config import load_config

NO_STEP = {"train.max_duration": "1 step", "train.save_every": "1 step"}
TALL = {"model.layers": 2}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A place with texts, `lm.toml`, and the run `old` of it."""
    place = tmp_path_factory.mktemp("pretrained")
    folder(place / "texts")
    (place / "lm.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        old = train({"optimizer.learning_rate": 0.1}, "old")
    assert Path(place, old, "checkpoints", "best").resolve() != Path(place, old, "checkpoints", "last").resolve()
    return place


@pytest.fixture
def place(pretrained, tmp_path, monkeypatch):
    """A copy of that place, to work in."""
    shutil.copytree(pretrained, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held(run, name="last"):
    return load_file(Path("runs", run, "checkpoints", name, "model.safetensors"))


def first(name, **changes):
    """The weights that a run begins with."""
    loaded = load_config("lm.toml", {"run.name": name, **changes})
    from etude.app.running import build_job

    loaded.config.folder.mkdir(parents=True, exist_ok=True)
    return build_job(loaded, loaded.config.folder, lambda _: None).task.state_dict()


def test_a_run_begins_with_the_best_weights_of_another_and_the_rest_as_without_them(place):
    plain, loaded = (
        first("a", **TALL),
        first("b", **TALL, **{"init.from": [{"checkpoint": "runs/old", "required": False}]}),
    )

    best = held("old", "best")
    assert {name for name in loaded if name not in best} == {name for name in loaded if ".layers.1." in name}
    for name, value in loaded.items():
        assert torch.equal(value, best.get(name, plain[name])), name


@pytest.mark.parametrize(
    "path",
    [
        "runs/old",
        "runs/old/best",
        "runs/old/last",
        "runs/old/checkpoints",
        "runs/old/checkpoints/last",
        "runs/old/checkpoints/step-00000006",
        "runs/old/step-00000006",
        "runs/old/checkpoints/last/model.safetensors",
        "averaged",
        "plain.pt",
        "sub/../plain.safetensors",
    ],
)
def test_everything_that_holds_weights_can_be_begun_with(path, place, capsys):
    Path("sub").mkdir()
    last = held("old")
    torch.save({"state_dict": {f"module.{name}": value for name, value in last.items()}}, "plain.pt")
    save_file(last, "plain.safetensors")
    if path == "averaged":
        assert main(["average", "runs/old", "--checkpoints", "last", "--output", path]) == 0
    wanted = held("old", "best") if path in {"runs/old", "runs/old/best", "runs/old/checkpoints"} else last

    begun = first("new", **{"init.from": path})

    assert begun.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in begun.items())


def test_what_was_loaded_is_said_and_listed_tensor_by_tensor(place, capsys):
    new = train({**TALL, **NO_STEP, "init.from": [{"checkpoint": "runs/old/last", "match": "embedding.*"}]}, "new")

    told, said = json.loads((new / "init.json").read_text()), capsys.readouterr().out
    count = len(held("new"))
    source = Path("runs/old/checkpoints/step-00000006").resolve()
    assert f"Loaded 1 of {count} tensors from {source}; not loaded are" in said
    assert told["tensors"] == {"model.embedding.weight": {"from": 0, "name": "model.embedding.weight"}}
    assert told["from"][0]["read"] == str(source)
    assert len(told["from"][0]["not_loaded"]) == count - 1


def test_a_run_that_goes_on_needs_its_sources_no_more_and_ends_in_the_same_bits(place):
    from_old = {"init.from": "runs/old", "optimizer.learning_rate": 0.01}
    whole = train(from_old, "whole")
    train({**from_old, "train.max_duration": "4 steps"}, "cut")
    shutil.move("runs/old", "runs/gone")

    cut = train(from_old, "cut")

    assert weights(cut) == weights(whole)
    assert rows(cut)[-1] == rows(whole)[-1]
    flags = ["lm.toml", "--run.name", "cut", "--init.from", "runs/old", "--optimizer.learning_rate", "0.01"]
    assert main(["check", *flags]) == 0
    assert main(["plan", *flags]) == 0
    assert main(["validate", "runs/cut"]) == 0


def test_weights_that_changed_before_anything_was_saved_are_said(place, capsys):
    save_file(held("old", "best"), "plain.safetensors")
    first("new", **{"init.from": "plain.safetensors"})
    save_file(held("old", "step-00000004"), "plain.safetensors")

    train({"init.from": "plain.safetensors", **NO_STEP}, "new")

    said = capsys.readouterr().out
    assert "plain.safetensors has changed since this run was first started: it begins anew" in said


@pytest.mark.parametrize("verb", ["train", "check", "plan"])
@pytest.mark.parametrize(
    ("table", "code", "said"),
    [
        ('{checkpoint = "runs/none"}', 2, "init.from[0]: {place}/runs/none is not there"),
        ('{checkpoint = "texts"}', 2, "init.from[0]: {place}/texts holds no weights"),
        ('{checkpoint = "runs/old/checkpoints/step-00000099"}', 2, "the run has the checkpoints of steps 3, 4, 6"),
        ('{checkpoint = "runs/old", match = "embeding.*"}', 2, "'embeding.*' matches no tensor of the model"),
        ('{checkpoint = "runs/old", mach = "*"}', 2, "match"),
        ('{checkpoint = "runs/old", rename = {"a.*" = "b"}}', 2, "must have as many * on both sides"),
        ('{checkpoint = "lm.toml"}', 5, "lm.toml cannot be read: it is damaged, or no state dict"),
    ],
)
def test_a_bad_entry_is_told_before_the_first_step(verb, table, code, said, place, capsys):
    assert main([verb, "lm.toml", "--run.name", "new", "--init.from", f"[{table}]"]) == code

    assert said.format(place=place) in capsys.readouterr().err
    assert not list(place.glob("runs/new/checkpoints/step-*"))


WIDE = {"model.d_model": 24, "model.feedforward": 80, "model.layers": 2}


def test_a_wider_model_holds_a_narrower_ones_weights_where_growth_has_them(place):
    plain = first("a", **WIDE)
    grown = first("b", **WIDE, **{"init.from": [{"checkpoint": "runs/old", "grow": True, "required": False}]})

    best = held("old", "best")
    embedding, projection = "model.embedding.weight", "model.layers.0.attention.projection.weight"
    assert torch.equal(grown[embedding][:, :16], best[embedding])
    assert torch.equal(grown[embedding][:, 16:], plain[embedding][:, 16:])
    # Queries, keys and values, each of two heads; of queries and keys, halves are turned together.
    old, now, drawn = (state[projection].unflatten(0, (3, 2, -1)) for state in (best, grown, plain))
    halves = now[:2].unflatten(2, (2, 6))
    assert torch.equal(halves[..., :4, :16], old[:2].unflatten(2, (2, 4)))
    assert torch.equal(halves[..., 4:, :], drawn[:2].unflatten(2, (2, 6))[..., 4:, :])
    assert torch.equal(now[2, :, :8, :16], old[2])
    assert torch.equal(now[2, :, 8:], drawn[2, :, 8:])
    assert torch.equal(grown["model.layers.1.attention.output.weight"], plain["model.layers.1.attention.output.weight"])


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        ({"checkpoint": "runs/old", "required": False}, WIDE, "add grow = true to have it in the wider one"),
        ({"checkpoint": "plain.safetensors", "grow": True, "required": False}, WIDE, "grow = true needs a run"),
        ({"checkpoint": "runs/old", "grow": True}, WIDE, "has no model.layers.1."),
        ({"checkpoint": "runs/old", "grow": True}, {"model.d_model": 8}, "leave it out of init.from[0].match"),
    ],
)
def test_what_cannot_be_in_a_wider_model_is_said(table, changes, said, place):
    save_file(held("old"), "plain.safetensors")

    with pytest.raises(ConfigError) as caught:
        first("b", **changes, **{"init.from": [table]})

    assert said in str(caught.value)


def test_weights_of_other_tokens_are_said_with_the_tokenizer_to_take(place, capsys):
    options = {"init.from": [{"checkpoint": "runs/old", "match": "layers.*"}]}
    train({**options, **NO_STEP, "tokenizer.type": "char"}, "other")
    other = capsys.readouterr().out
    tokens = {"tokenizer": {"type": "file", "path": "runs/old/tokenizers/shared.json"}, "init.from": "runs/old"}
    train({**tokens, **NO_STEP}, "again")

    assert f"{place}/runs/old was trained with other tokens: what is loaded of embeddings" in other
    assert f"with the path {place}/runs/old/tokenizers/shared.json." in other
    assert "other tokens" not in capsys.readouterr().out


def test_a_damaged_checkpoint_is_named(place):
    path = Path("runs/old/checkpoints/best/model.safetensors").resolve()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(StorageError, match=r"model\.safetensors is damaged: its sha256 differs from the manifest"):
        train({"init.from": "runs/old"}, "new")


def test_a_table_in_the_config_is_relative_to_it_and_another_one_is_another_run(place, monkeypatch):
    Path("lm.toml").write_text(
        CONFIG + '[[init.from]]\ncheckpoint = "runs/old"\nmatch = ["embedding.*", "*norm.weight"]\n'
    )
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    etude.train("../lm.toml", {"run.name": "new", **NO_STEP})

    composed = load_config("runs/new/config.toml").config.init.from_[0]
    assert composed.checkpoint == place / "runs" / "old"
    with pytest.raises(RefusedError, match=r"init\.from"):
        etude.train("../lm.toml", {"run.name": "new", "init.from": "../runs/old", **NO_STEP})


def test_frozen_weights_are_those_that_were_loaded_until_they_thaw(place):
    from_old = {"init.from": [{"checkpoint": "runs/old", "required": False}], **TALL}

    new = train({**from_old, "train.freeze": ["layers.0.*", "embedding.*"]}, "new")

    best, now = held("old", "best"), held("new")
    same = {name for name, value in now.items() if name in best and torch.equal(value, best[name])}
    assert same == {name for name in best if ".layers.0." in name or ".embedding." in name}
    assert new.is_dir()


def test_a_fork_whose_steps_are_taken_again_begins_with_the_same_weights_or_is_refused(place, capsys):
    save_file(held("old", "best"), "plain.safetensors")
    from_file = {"init.from": "plain.safetensors"}
    train(from_file, "new")
    fork = ["fork", "runs/new", "--at", "1 step", "--optimizer.learning_rate", "0.1", "--run.name"]

    assert main([*fork, "same"]) == 0
    save_file(held("old"), "plain.safetensors")
    assert main([*fork, "other"]) == 7

    assert "The content of init.from[0] (or how" in capsys.readouterr().err
    assert {row["step"]: row for row in rows("runs/same")}[1] == {row["step"]: row for row in rows("runs/new")}[1]


def test_a_task_in_python_loads_from_a_run_of_python(tmp_path):
    trainer(run_dir=tmp_path / "run", max_duration="4 steps").fit(Line(), line(), line(8))
    task = Line()

    loaded = etude.load_weights(task, tmp_path / "run", match="net.*")

    best = load_file(tmp_path / "run" / "checkpoints" / "best" / "model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in task.state_dict().items())
    assert not loaded.left


def test_a_word_of_another_tool_is_told_as_init_from(place, capsys):
    assert main(["train", "lm.toml", "--pretrained", "runs/old"]) == 2

    assert "--init.from runs/old" in capsys.readouterr().err


def test_python_says_what_is_wrong_with_a_path():
    with pytest.raises(ConfigError, match=r"load_weights: .*nowhere\.pt is not there\."):
        etude.load_weights(torch.nn.Linear(1, 1), "nowhere.pt")
