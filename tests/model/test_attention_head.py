"""Laws of the attention head: steps are the whole, padding is never seen, searches find what brute force finds."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from etude.data.tokens.tokenizers import BOS, EOS, PAD
from etude.model.frames.attention import AttentionConfig, AttentionHead
from etude.model.initialisers import initialise
from etude.model.losses import CrossEntropy
from etude.search.attention import FrameLimits, beam, greedy

WIDTH, VOCABULARY = 6, 7
SHAPES = [("pre", "learned"), ("post", "sinusoidal"), ("pre", "rotary")]
every_shape = pytest.mark.parametrize(("norm", "positions"), SHAPES)


def head(seed=1, **options):
    sizes = {"d_model": 8, "heads": 2, "layers": 2, "feedforward": 12, "dropout": 0.0}
    model = AttentionHead(AttentionConfig(**sizes | options), WIDTH, VOCABULARY)
    initialise(model, seed)
    return model.double().eval()


def problem(seed=0, frames=6):
    draw = torch.Generator().manual_seed(seed)
    encoded = torch.randn(4, frames, WIDTH, generator=draw, dtype=torch.float64).mul(2)
    inputs = torch.cat((torch.full((4, 1), BOS), torch.randint(4, VOCABULARY, (4, 4), generator=draw)), 1)
    return encoded, torch.tensor([frames, frames - 2, 1, frames]), inputs


@every_shape
def test_decoding_with_the_cache_equals_decoding_without(norm, positions):
    model, (encoded, lengths, inputs) = head(norm=norm, positions=positions), problem()

    cache = model.start(model.encode(encoded, lengths))
    stepped = torch.stack([model.step(column, cache)[0] for column in inputs.T], 1)

    torch.testing.assert_close(stepped, model(encoded, lengths, inputs), rtol=0, atol=1e-12)


@every_shape
def test_padding_and_company_change_no_logit(norm, positions):
    model, (encoded, lengths, inputs) = head(norm=norm, positions=positions), problem()
    changed = encoded.clone()
    for row, frames in zip(changed, lengths.tolist(), strict=True):
        row[frames:] = math.nan

    logits = model(changed, lengths, inputs)

    for at, frames in enumerate(lengths.tolist()):
        alone = model(encoded[at : at + 1, :frames], lengths[at : at + 1], inputs[at : at + 1])
        torch.testing.assert_close(logits[at : at + 1], alone, rtol=0, atol=1e-12)


def test_cross_attention_is_torchs_over_the_real_frames():
    model, (encoded, lengths, _) = head(layers=1), problem()
    cross, hidden = model.layers[0].cross, torch.randn(4, 3, 8, dtype=torch.float64)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat((cross.query.weight, cross.projection.weight)),
            "in_proj_bias": torch.cat((cross.query.bias, cross.projection.bias)),
            "out_proj.weight": cross.output.weight,
            "out_proj.bias": cross.output.bias,
        }
    )
    memory = model.encode(encoded, lengths)

    mixed = cross(hidden, memory.hidden, type("Mask", (), {"added": memory.mask, "causal": False}))

    source = model.frames(encoded)
    beyond = torch.arange(6) >= lengths[:, None]
    wanted = theirs(hidden, source, source, key_padding_mask=beyond)[0]
    torch.testing.assert_close(mixed, wanted, rtol=0, atol=1e-12)


def test_every_parameter_learns_from_the_loss():
    model, (encoded, lengths, inputs) = head(tie_output=False, positions="learned").train(), problem()

    hidden = model.hidden(encoded, lengths, inputs)
    CrossEntropy().from_hidden(hidden, model.output_weight, inputs).sum.backward()

    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_frames_of_the_decoders_width_are_taken_as_they_are():
    model = AttentionHead(AttentionConfig(d_model=8, heads=2), 8, VOCABULARY)

    assert not list(model.frames.parameters())


@torch.no_grad()
def brute(model, encoded, lengths, longest):
    """Every text of at most so many labels with its log-probability, eos included, most probable first."""
    found = []
    for length in range(longest + 1):
        for text in product([label for label in range(VOCABULARY) if label not in {PAD, BOS, EOS}], repeat=length):
            inputs = torch.tensor([[BOS, *text]])
            logs = model(encoded, lengths, inputs)[0].log_softmax(-1)
            found.append((text, sum(float(logs[at, label]) for at, label in enumerate((*text, EOS)))))
    return sorted(found, key=lambda one: -one[1])


def test_a_wide_beam_finds_the_best_texts_with_their_probabilities():
    model, (encoded, lengths, _) = head(), problem()

    found = beam(model, encoded, lengths, width=100, limits=FrameLimits(ratio=0.0, extra=3))

    for one, row, frames in zip(found, encoded, lengths, strict=True):
        wanted = brute(model, row[None], frames[None], 3)
        assert [text.tokens for text in one[:40]] == [text for text, _ in wanted[:40]]
        assert [text.log_probability for text in one] == pytest.approx([s for _, s in wanted[: len(one)]], rel=1e-9)


def test_the_best_of_a_beam_is_never_below_the_greedy_one_and_a_beam_of_one_is_greedy():
    for seed in range(6):
        model, (encoded, lengths, _) = head(seed), problem(seed)
        first = greedy(model, encoded, lengths)

        assert [one[0].tokens for one in beam(model, encoded, lengths, width=1)] == [one.tokens for one in first]
        for width in (2, 3):
            found = beam(model, encoded, lengths, width=width)
            assert all(len(several) <= width for several in found)
            assert all(several[0].score >= one.score - 1e-9 for several, one in zip(found, first, strict=True))


@pytest.mark.parametrize("search", [greedy, lambda *given: [one[0] for one in beam(*given, width=3)]])
def test_company_and_frames_that_are_not_read_change_no_transcript(search):
    model, (encoded, _, _) = head(), problem()
    encoded[1, 1] = math.nan
    lengths = torch.tensor([0, 3, 4, 6])

    together = search(model, encoded, lengths)

    assert [one.tokens for one in together[:2]] == [(), ()]
    for at, frames in enumerate(lengths.tolist()):
        alone = search(model, encoded[at : at + 1, :frames], lengths[at : at + 1])[0]
        assert alone.tokens == together[at].tokens
        assert alone.score == pytest.approx(together[at].score, rel=1e-9)
    assert search(model, encoded[:0], lengths[:0]) == []


def test_learned_positions_limit_what_is_said():
    model, (encoded, lengths, _) = head(positions="learned", max_positions=3), problem()

    limit = FrameLimits().of(lengths, model)

    assert limit.tolist() == [2, 2, 2, 2]
    assert all(len(one.tokens) <= 2 for one in greedy(model, encoded, lengths))


def test_rates_of_dropout_may_follow_schedules():
    schedule = {"schedule": "linear", "from": 0.0, "to": 0.2, "over": "3 steps"}
    model = head(attention_dropout=schedule)
    (value,) = model.scheduled_values()

    assert value.key == "model.attention.attention_dropout"
    assert value.apply(0.2) == 4
