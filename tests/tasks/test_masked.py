"""Hidden tokens: which are, what stands in their place, and the loss of predicting them from both sides."""

import numpy as np
import pytest
import torch
from torch import nn

from etude.data.feeds.text_batches import IGNORED, TextBatch
from etude.data.feeds.text_masks import FIRST, HIDDEN, Shares, TextMasks
from etude.data.tokens.tokenizers import EOS, PAD
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.encoder import EncoderConfig
from etude.model.losses import CrossEntropy
from etude.model.masked import MaskedEncoder
from etude.tasks.language_model.config import LanguageModelConfig
from etude.tasks.language_model.masked import MaskedTask

TOKENS = 500
MASKS = TextMasks(Shares(0.15, 0.8, 0.1), TOKENS, seed=3, varies=True)


def text(length, seed=0):
    return np.random.default_rng(seed).integers(FIRST, TOKENS, length)


def test_fifteen_percent_are_predicted_and_stand_hidden_replaced_or_as_they_are():
    ids = text(200_000)

    seen, chosen = MASKS.of(ids, 0, 0, 0)

    hidden, same = seen == HIDDEN, seen == ids
    others = seen[chosen & ~hidden & ~same]
    count = chosen.sum()
    assert abs(chosen.mean() - 0.15) < 4 * (0.15 * 0.85 / len(ids)) ** 0.5
    for share, found in ((0.8, hidden), (0.1 * (1 - 1 / (TOKENS - FIRST)), chosen & ~hidden & ~same)):
        assert abs(found.sum() / count - share) < 4 * (share * (1 - share) / count) ** 0.5
    assert same[~chosen].all()
    assert (others.min(), others.max()) == (FIRST, TOKENS - 1)
    counts = np.bincount(others, minlength=TOKENS)[FIRST:]
    expected = len(others) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < len(counts) + 4 * (2 * len(counts)) ** 0.5


def test_masks_are_of_places_in_a_text_whatever_is_read_together():
    ids = text(5_000)
    whole = MASKS.of(ids, 0, 1, 4)

    for begin, length in ((0, 700), (63, 64), (2_000, 3_000)):
        part = MASKS.of(ids[begin : begin + length], begin, 1, 4)
        assert all(np.array_equal(one, other[begin : begin + length]) for one, other in zip(part, whole, strict=True))


def test_masks_differ_with_epoch_text_and_seed_and_fixed_ones_with_no_epoch():
    ids = text(2_000)
    fixed = MASKS._replace(varies=False)

    found = [MASKS.of(ids, 0, source, epoch)[1] for source, epoch in ((0, 0), (0, 1), (1, 0))]
    found.append(MASKS._replace(seed=4).of(ids, 0, 0, 0)[1])

    assert len({one.tobytes() for one in found}) == 4
    assert np.array_equal(fixed.of(ids, 0, 0, 0)[0], fixed.of(ids, 0, 0, 7)[0])


def test_ends_of_documents_are_never_hidden_and_some_token_always_is():
    ids = np.where(np.arange(3_000) % 2, text(3_000), EOS)

    seen, chosen = MASKS.of(ids, 0, 0, 0)

    assert (seen[ids == EOS] == EOS).all()
    assert not chosen[ids == EOS].any()
    assert all(MASKS.of(ids[place : place + 2], place, 0, 0)[1].sum() == 1 for place in range(0, 200, 2))
    assert not MASKS.of(np.array([EOS, EOS]), 0, 0, 0)[1].any()
    assert not len(MASKS.of(ids[:0], 0, 0, 0)[1])


# -- the loss ------------------------------------------------------------------------------------------------------


def encoder(**more):
    config = EncoderConfig(d_model=8, heads=2, layers=2, feedforward=8, dropout=0.0, **more)
    return MaskedEncoder(config, 12, PAD)


def decoder():
    return Decoder(DecoderConfig(d_model=8, heads=2, layers=2, feedforward=8), 12)


def batch(inputs, targets, documents=None):
    inputs, targets = torch.tensor(inputs), torch.tensor(targets)
    places = None if documents is None else torch.zeros_like(inputs)
    numbers = None if documents is None else torch.tensor(documents, dtype=torch.int32)
    return TextBatch(inputs, targets, int((targets != IGNORED).sum()), 0.0, numbers, places)


def task(model, loss=None):
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    metrics = ["perplexity", "bits_per_byte", "accuracy"]
    given = LanguageModelConfig(objective="masked", metrics=metrics)
    return MaskedTask(model, given, loss or CrossEntropy(ignore_index=IGNORED)).eval()


I = IGNORED  # noqa: E741 - a table of targets


@pytest.mark.parametrize("make", [encoder, decoder, lambda: encoder(positions="rotary")])
def test_the_loss_is_that_of_the_hidden_tokens_computed_by_hand(make):
    made = task(make())
    given = batch([[HIDDEN, 5, 6, 11], [7, HIDDEN, PAD, PAD]], [[4, I, I, 9], [I, 8, I, I]])

    loss = made.training_step(given)

    total = 0.0
    for row, length, places in ((0, 4, {0: 4, 3: 9}), (1, 2, {1: 8})):
        alone = batch(given.inputs[row : row + 1, :length].tolist(), [[I] * length])
        logits = (made._hidden(alone)[0] @ made._output().T).detach()
        for place, token in places.items():
            total -= float(logits[place, token] - logits[place].exp().sum().log())
    assert loss.count == 3
    assert float(loss.sum.detach()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_predictions_see_both_sides_and_neither_padding_nor_other_documents(make):
    made = task(make())
    rows = torch.tensor([[HIDDEN, 5, 6, 7], [HIDDEN, 5, 6, 8], [HIDDEN, 5, 6, PAD]])

    def first(inputs, documents=None):
        return made._hidden(batch(inputs.tolist(), [[I] * inputs.size(1)], documents))[0, 0]

    one, other, padded = (first(row[None]) for row in rows)
    assert not torch.allclose(one, other, atol=1e-4)
    torch.testing.assert_close(padded, first(rows[2:, :3]), rtol=1e-5, atol=1e-6)
    apart = [[0, 0, 1, 1]]
    torch.testing.assert_close(first(rows[:1], apart), first(rows[1:2], apart), rtol=1e-5, atol=1e-6)


def test_a_loss_of_torch_and_the_metrics_are_of_the_hidden_tokens():
    made = task(encoder(), nn.CrossEntropyLoss(ignore_index=IGNORED))
    given = batch([[HIDDEN, 5, 6, 11]], [[4, I, I, 9]])
    logits = (made._hidden(given)[0] @ made._output().T).detach()
    expected = nn.functional.cross_entropy(logits, given.targets[0], ignore_index=IGNORED)

    made.metrics = made.configure_metrics()
    made.validation_step(given)

    assert float(made.training_step(given).sum.detach()) / 2 == pytest.approx(float(expected), rel=1e-5)
    assert made.metrics["perplexity"].compute() == pytest.approx(float(expected.exp()), rel=1e-4)
    right = sum(int(logits[place].argmax()) == token for place, token in ((0, 4), (3, 9)))
    assert made.metrics["accuracy"].compute() == right / 2
    assert "bits_per_byte" not in made.metrics
