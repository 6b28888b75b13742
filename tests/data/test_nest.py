"""What is done to every tensor of a batch."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from etude.data import nest


class Pair(NamedTuple):
    left: torch.Tensor
    right: str


@dataclass(frozen=True)
class Record:
    x: torch.Tensor
    name: str
    made: int = field(init=False, default=7)


class Own:
    def __init__(self, device="cpu"):
        self.device = device

    def to(self, device, **_):
        return Own(device)


def ones():
    return torch.ones(2, 3)


@pytest.mark.parametrize(
    ("batch", "tensor"),
    [
        (ones(), lambda b: b),
        ((ones(), 1), lambda b: b[0]),
        ([ones(), torch.ones(4)], lambda b: b[1]),
        ({"a": [{"b": ones()}]}, lambda b: b["a"][0]["b"]),
        (OrderedDict(a=ones()), lambda b: b["a"]),
        (Pair(ones(), "text"), lambda b: b.left),
        (Record(ones(), "n"), lambda b: b.x),
        (pack_sequence([torch.ones(3), torch.ones(2)]), lambda b: b.data),
    ],
)
def test_every_tensor_of_a_nest_is_moved_and_its_form_is_kept(batch, tensor):
    moved = nest.move(batch, "meta")

    assert type(moved) is type(batch)
    assert tensor(moved).device.type == "meta"
    assert tensor(batch).device.type == "cpu"


def test_what_is_no_tensor_passes_untouched():
    batch = {"id": 3, "text": "a", "none": None, "array": np.ones(2), "record": Record(ones(), "n")}

    moved = nest.move(batch, "meta")

    assert (moved["id"], moved["text"], moved["none"], moved["array"]) == (3, "a", None, batch["array"])
    assert (moved["record"].name, moved["record"].made) == ("n", 7)


def test_an_object_that_can_move_itself_is_asked():
    assert nest.move([Own()], "meta")[0].device == "meta"


def test_a_detached_nest_is_cut_from_its_graph():
    x = torch.ones(2, requires_grad=True)

    h, packed = nest.detach((x * 2, pack_sequence([x * 3])))

    assert not h.requires_grad
    assert isinstance(packed, PackedSequence)
    assert not packed.data.requires_grad


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.ones(4, 2), 4),
        (torch.tensor(1.0), None),
        ((torch.ones(4, 2), torch.ones(4)), 4),
        ([torch.ones(4, 2), torch.ones(4)], 4),
        ([torch.ones(5), torch.ones(3)], 2),
        ({"n": 3, "x": torch.ones(6)}, 6),
        (pack_sequence([torch.ones(3), torch.ones(2)]), 2),
        (Record(torch.ones(5), "n"), 5),
        (["a", "b", "c"], 3),
        ([["a", "b", "c"], torch.ones(3)], 3),
        ([], 0),
        ("text", None),
        (3, None),
    ],
)
def test_samples_are_counted_by_the_first_part_that_tells(batch, samples):
    assert nest.count_samples(batch) == samples
