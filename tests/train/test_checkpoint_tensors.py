"""Tensors are written as safetensors defines them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from etude.base.errors import StorageError
from etude.train.memory.checkpoint.reader import read_tensors
from etude.train.memory.checkpoint.tensors import _NAMES, write_tensors

SHAPES = [(), (0,), (1,), (3, 5), (2, 0, 4), (2, 3, 4)]


def tensor_of(dtype, shape, start=0):
    count = int(torch.tensor(shape).prod()) if shape else 1
    return (
        ((torch.arange(count) + start) % 2 if dtype is torch.bool else torch.arange(count) + start)
        .to(dtype)
        .reshape(shape)
    )


@pytest.mark.parametrize("dtype", _NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_type_and_shape_comes_back_as_it_was(dtype, shape, tmp_path):
    tensor = tensor_of(dtype, shape)

    write_tensors(tmp_path / "t.safetensors", {"a": tensor, "b.ä": tensor})

    found = read_tensors(tmp_path / "t.safetensors")
    assert found.keys() == {"a", "b.ä"}
    for value in found.values():
        assert value.dtype == dtype
        assert value.shape == tensor.shape
        assert value.contiguous().view(-1).view(torch.uint8).equal(tensor.view(-1).view(torch.uint8))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=6).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.tuples(st.sampled_from([torch.float32, torch.int64, torch.bool, torch.bfloat16]), st.sampled_from(SHAPES)),
        max_size=5,
    )
)
def test_the_bytes_are_those_of_the_library(tmp_path_factory, kinds):
    folder = tmp_path_factory.mktemp("bytes")
    tensors = {name: tensor_of(*kind, start=7) for name, kind in kinds.items()}

    write_tensors(folder / "ours", tensors)
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})

    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    assert load_file(folder / "ours").keys() == tensors.keys()


def test_transposed_and_sliced_tensors_are_written_by_value(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)

    write_tensors(tmp_path / "t", {"turned": whole.T, "part": whole[:, 1:3]})

    found = read_tensors(tmp_path / "t")
    assert found["turned"].equal(whole.T)
    assert found["part"].equal(whole[:, 1:3])


def test_a_type_that_the_format_lacks_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"cannot hold z: safetensors has no torch\.complex128"):
        write_tensors(tmp_path / "t", {"z": torch.zeros(1, dtype=torch.complex128)})
