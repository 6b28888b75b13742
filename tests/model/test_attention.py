"""Laws of attention: the plain and the fused way are one function."""

import pytest
import torch

from etude.model.layers.attention import attend_fused, attend_plainly, prefers_plain
from etude.model.layers.dropout import Dropout
from etude.model.layers.masks import EVERYWHERE, Mask, causal_mask, padding_mask
from etude.model.layers.positions import Rotary


@pytest.mark.parametrize("kind", ["everywhere", "padding", "causal"])
def test_plain_and_fused_attention_agree_in_value_and_gradient(kind):
    torch.manual_seed(2)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    mask = {
        "everywhere": EVERYWHERE,
        "padding": padding_mask(padding, torch.float64),
        "causal": causal_mask(5, query),
    }[kind]
    weight = torch.randn(2, 3, 5, 4, dtype=torch.float64)

    results = []
    for way in (attend_plainly, attend_fused):
        mixed = way(query, key, value, mask, Dropout().eval())
        results.append((mixed, *torch.autograd.grad((mixed * weight).sum(), (query, key, value))))

    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, rtol=0, atol=1e-12)


def test_short_sequences_on_the_processor_take_the_plain_way():
    short, long = torch.empty(1, 1, 20, 4), torch.empty(1, 1, 5000, 4)

    assert prefers_plain(short, short)
    assert not prefers_plain(long, long)
    assert not prefers_plain(short.to("meta"), short.to("meta"))


def test_rotary_scores_depend_on_the_distance_alone():
    rotary = Rotary(8)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def turned(value, place):
        return rotary.turn(place, 1, value)(value)

    scores = [float((turned(query, at + 3) * turned(key, at)).sum()) for at in (0, 1, 17, 400)]

    assert scores == pytest.approx([scores[0]] * 4, abs=1e-12)


@pytest.mark.parametrize("way", [attend_plainly, attend_fused])
def test_what_a_mask_adds_for_each_head_and_distance_is_added_to_the_scores(way):
    torch.manual_seed(4)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.float64) for _ in range(3))
    distance = torch.arange(5)[:, None] - torch.arange(5)
    bias = torch.randn(3, 9, dtype=torch.float64)[:, distance + 4]

    mixed = way(query, key, value, Mask(bias), Dropout().eval())

    weights = (query @ key.transpose(-2, -1) / 2 + bias).softmax(-1)
    torch.testing.assert_close(mixed, weights @ value, rtol=0, atol=1e-12)
