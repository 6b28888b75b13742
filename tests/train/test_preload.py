"""Weights of other models as first ones: what a module is given equals what lies in the file, name by name."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import etude
from etude.base.errors import ConfigError, StorageError
from etude.model.init_source import InitSource
from etude.train.memory.preload import preload, read_source


def network(seed, width=4, layers=2):
    """A module of the names encoder.N.*, head.*, with a buffer that counts."""
    torch.manual_seed(seed)
    made = nn.Module()
    made.encoder = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
    made.head = nn.Linear(width, 3)
    made.register_buffer("seen", torch.tensor(seed))
    return made


def values(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.fixture
def saved(tmp_path):
    """A file of the weights of `network(1)`."""
    save_file(network(1).state_dict(), tmp_path / "one.safetensors")
    return tmp_path / "one.safetensors"


def written(path, content):
    torch.save(content, path)
    return path


def test_all_that_match_means_equals_the_file_and_the_rest_is_untouched(saved):
    module, before, given = network(2), values(network(2)), values(network(1))

    loaded = etude.load_weights(module, saved, match=["encoder.*", "seen"])

    now = values(module)
    for name, value in now.items():
        assert torch.equal(value, before[name] if name.startswith("head") else given[name]), name
    assert list(loaded.left) == ["head.weight", "head.bias"]
    assert str(loaded) == (
        f"Loaded 5 of 7 tensors from {saved}; not loaded are head.weight, head.bias; without a use here are "
        f"head.bias, head.weight."
    )


def test_what_is_called_otherwise_is_renamed_and_a_tasks_model_may_be_left_out(tmp_path):
    given = values(network(1))
    old = {name.replace("encoder.", "model.layers.").replace("head", "out"): value for name, value in given.items()}
    path = written(tmp_path / "old.pt", old)
    module = network(2)

    etude.load_weights(module, path, rename={"layers.*": "encoder.*", "out.*": "head.*"})

    assert all(torch.equal(value, given[name]) for name, value in values(module).items())


def test_a_module_inside_of_a_task_is_found_from_a_plain_file(saved):
    task = nn.ModuleDict({"model": network(2)})

    etude.load_weights(task, saved, match=["encoder.0.*", "model.head.*"])

    given, now = values(network(1)), values(task)
    assert torch.equal(now["model.encoder.0.weight"], given["encoder.0.weight"])
    assert torch.equal(now["model.head.bias"], given["head.bias"])
    assert not torch.equal(now["model.encoder.1.weight"], given["encoder.1.weight"])


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, 'of its "state_dict"'),
        (lambda state: {"model": state, "step": torch.tensor(3)}, 'of its "model"'),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, 'without the "module."'),
        (lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()}, "torch.compile"),
    ],
)
def test_a_state_dict_is_taken_as_other_tools_write_it_and_how_is_said(wrap, said, tmp_path):
    path = written(tmp_path / "model.pt", wrap(network(1).state_dict()))
    module = network(2)

    loaded = etude.load_weights(module, path)

    assert all(torch.equal(value, values(network(1))[name]) for name, value in values(module).items())
    assert said in str(loaded)


def test_a_state_dict_in_the_old_format_is_read(tmp_path):
    path = tmp_path / "old.pt"
    torch.save(network(1).state_dict(), path, _use_new_zipfile_serialization=False)
    module = network(2)

    etude.load_weights(module, path)

    assert torch.equal(module.head.weight, network(1).head.weight)


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_nothing_but_tensors_and_plain_data_is_unpickled(tmp_path, capsys):
    whole = written(tmp_path / "whole.pt", network(1))
    trap = written(tmp_path / "trap.pt", {"model": network(1).state_dict(), "args": Trap()})

    for path in (whole, trap):
        with pytest.raises(StorageError, match=r"holds \S+ beside tensors, which is code that Etude never runs"):
            etude.load_weights(network(2), path)

    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{}", "is damaged"),
        ("a.pt", b"no such thing", "cannot be read: it is damaged, or no state dict"),
        ("a.pt", b"", "is no state dict of torch, or damaged"),
    ],
)
def test_a_file_that_is_damaged_is_one_sentence(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(StorageError, match=said) as caught:
        etude.load_weights(network(2), tmp_path / name)

    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_is_no_state_dict(tmp_path):
    with pytest.raises(StorageError, match="holds no tensors by name"):
        etude.load_weights(network(2), written(tmp_path / "a.pt", {"epoch": 3}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"match": "encodr.*"}, r"match: 'encodr\.\*' matches no tensor of the model; near names are encoder"),
        ({"rename": {"old.*": "new.*"}}, r"rename: 'old\.\*' matches no tensor of .*one\.safetensors"),
        ({"rename": {"head.*": "other.*"}, "match": "head.*"}, r"match: 'head\.\*' matches no tensor of .*one\.safe"),
        (
            {"rename": {"head.*": "other.*"}},
            r"has no head\.weight, head\.bias \(its first names are encoder.*\); narrow load_weights\.match",
        ),
        ({"rename": {"head.*": "head"}}, r'"head\.\*" = "head" must have as many \* on both sides'),
        ({"rename": {"encoder.0.*": "encoder.1.*"}}, r"both encoder\.0\.weight and encoder\.1\.weight of .* become"),
    ],
)
def test_a_pattern_that_means_nothing_is_an_error_and_changes_nothing(options, said, saved):
    module = network(2)

    with pytest.raises(ConfigError, match=said):
        etude.load_weights(module, saved, **options)

    assert all(torch.equal(value, values(network(2))[name]) for name, value in values(module).items())


def test_what_is_not_there_keeps_its_values_only_where_it_is_not_required(saved):
    module = network(2, layers=3)

    loaded = etude.load_weights(module, saved, required=False)

    assert list(loaded.left) == ["encoder.2.weight", "encoder.2.bias"]
    assert torch.equal(module.encoder[2].weight, network(2, layers=3).encoder[2].weight)
    assert torch.equal(module.encoder[1].weight, network(1).encoder[1].weight)


def test_another_shape_is_refused_with_both_and_what_to_do(saved):
    with pytest.raises(ConfigError) as caught:
        etude.load_weights(network(2, width=5), saved, match=["encoder.0.*", "head.bias"])
    with pytest.raises(ConfigError) as narrower:
        etude.load_weights(network(2, width=3), saved, match="encoder.0.weight")

    assert str(caught.value) == (
        f"load_weights: encoder.0.weight of {saved} has shape (4, 4), but encoder.0.weight of the model has (5, 5) "
        f"(and 1 more differ); add grow = true to have it in the wider one, or leave it out of load_weights.match."
    )
    assert "has (3, 3); leave it out of load_weights.match." in str(narrower.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.tensor([1, 2, 3]), "head.bias of {} is int64, but head.bias of the model is float32."),
        (torch.tensor([1j, 2, 3]), "is complex64, but"),
        (torch.tensor([1.0, torch.nan, 3.0]), "is not finite as float32."),
        (torch.tensor([1.0, 1e300, 3.0], dtype=torch.float64), "is not finite as float32."),
    ],
)
def test_values_of_another_kind_are_refused(value, said, tmp_path):
    path = written(tmp_path / "a.pt", {"head.bias": value})

    with pytest.raises(ConfigError) as caught:
        etude.load_weights(network(2), path, match="head.bias")

    assert said.format(path) in str(caught.value)


def test_half_precision_is_converted_and_that_is_said(tmp_path):
    half = {name: value.half() if value.is_floating_point() else value for name, value in values(network(1)).items()}
    module = network(2)

    loaded = etude.load_weights(module, written(tmp_path / "a.pt", half))

    assert "float16 converted to float32" in str(loaded)
    assert module.head.weight.dtype is torch.float32
    assert torch.equal(module.head.weight, network(1).head.weight.half().float())


def tied(seed):
    torch.manual_seed(seed)
    made = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "output": nn.Linear(4, 5, bias=False)})
    made["output"].weight = made["embedding"].weight
    return made


def test_tied_weights_are_found_under_any_of_their_names_and_stay_tied(tmp_path):
    value = torch.arange(20.0).reshape(5, 4)
    module = tied(1)

    etude.load_weights(module, written(tmp_path / "a.pt", {"output.weight": value}))

    assert torch.equal(module["embedding"].weight, value)
    assert module["embedding"].weight is module["output"].weight


def test_untied_weights_of_the_source_do_not_fit_tied_ones_unless_one_is_named(tmp_path):
    value = torch.arange(20.0).reshape(5, 4)
    path = written(tmp_path / "a.pt", {"embedding.weight": value, "output.weight": value + 1})
    module = tied(1)

    with pytest.raises(ConfigError, match=r"embedding\.weight and output\.weight of .* differ, but are one tensor"):
        etude.load_weights(module, path)
    etude.load_weights(module, path, match="output.weight")

    assert torch.equal(module["embedding"].weight, value + 1)


def test_of_several_sources_the_later_ones_win(tmp_path):
    paths = [written(tmp_path / f"{seed}.pt", network(seed).state_dict()) for seed in (1, 3)]
    tables = [InitSource(checkpoint=paths[0]), InitSource(checkpoint=paths[1], match="head.*")]
    module = network(2)

    preload(module, [read_source(table, f"init.from[{number}]") for number, table in enumerate(tables)])

    assert torch.equal(module.encoder[0].weight, network(1).encoder[0].weight)
    assert torch.equal(module.head.weight, network(3).head.weight)


def test_all_that_is_wrong_with_several_sources_is_said_at_once(saved):
    tables = [InitSource(checkpoint=saved, match="a.*"), InitSource(checkpoint=saved, match="b.*")]

    with pytest.raises(ConfigError) as caught:
        preload(network(2), [read_source(table, f"init.from[{number}]") for number, table in enumerate(tables)])

    assert [problem.split(":")[0] for problem in caught.value.problems] == ["init.from[0].match", "init.from[1].match"]


def test_what_is_frozen_stays_frozen_and_what_is_trained_has_its_gradient(saved):
    module = network(2)
    module.head.requires_grad_(False)

    etude.load_weights(module, saved)

    assert not module.head.weight.requires_grad
    assert module.encoder[0].weight.requires_grad
    assert module.encoder[0].weight.is_leaf


def test_a_folder_of_several_files_is_read_whole(tmp_path):
    parts = {"a.safetensors": "encoder", "b.safetensors": "head", "c.safetensors": "seen"}
    state, where = network(1).state_dict(), {}
    for file, start in parts.items():
        held = {name: value for name, value in state.items() if name.startswith(start)}
        save_file(held, tmp_path / file)
        where |= dict.fromkeys(held, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    module = network(2)

    etude.load_weights(module, tmp_path)

    assert all(torch.equal(value, state[name]) for name, value in values(module).items())


@pytest.mark.parametrize("name", ["../one.safetensors", "gone.safetensors"])
def test_a_part_outside_of_its_folder_or_gone_is_refused(name, saved, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"head.bias": name}}))

    with pytest.raises(StorageError, match="which is not a file of its folder"):
        etude.load_weights(network(2), folder)


def test_the_hash_of_a_source_is_of_its_content_alone(saved, tmp_path):
    same = written(tmp_path / "same.pt", network(1).state_dict())
    other = written(tmp_path / "other.pt", network(1).state_dict() | {"seen": torch.tensor(7)})

    hashes = [read_source(InitSource(checkpoint=path), "").sha256 for path in (saved, same, other)]

    assert hashes[0] == hashes[1] != hashes[2]


def test_types_that_a_file_may_hold_have_a_hash(tmp_path):
    kinds = [torch.bool, torch.uint8, torch.bfloat16, torch.float64, torch.complex64, torch.int16]
    state = {str(kind): torch.zeros(3, dtype=kind) for kind in kinds} | {"none": torch.zeros(0), "one": torch.ones(())}

    found = read_source(InitSource(checkpoint=written(tmp_path / "a.pt", state)), "").sha256

    assert len(found) == 64
