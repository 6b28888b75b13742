"""Laws of metrics: what is merged counts as if one had seen it all, and nothing seen is no number."""

import math

import pytest
import torch

from etude.metrics.edit_distance import CharacterErrorRate, TokenErrorRate, WordErrorRate
from etude.metrics.ratios import Accuracy, BitsPerByte, Perplexity
from etude.metrics.text import TEXT_METRICS
from etude.train.watch.metrics import Metric

RATIOS = [(4.0, 2.0), (0.5, 3.0), (7.25, 8.0)]
TEXTS = [(["a cat sat down"], ["the cat sat down"]), (["it rains today here"], ["it rains here today"])]
RATIO_KINDS = (Accuracy, BitsPerByte, Perplexity)
ERROR_RATES = (CharacterErrorRate, TokenErrorRate, WordErrorRate)
TEXT_KINDS = (*TEXT_METRICS.values(), *ERROR_RATES)
EVERY = [*((kind, RATIOS) for kind in RATIO_KINDS), *((kind, TEXTS) for kind in TEXT_KINDS)]
every_metric = pytest.mark.parametrize(("kind", "seen"), EVERY, ids=lambda value: getattr(value, "__name__", ""))


@every_metric
def test_merged_parts_are_the_whole(kind, seen):
    whole, first, second = kind(), kind(), kind()

    for metric, batches in ((whole, seen), (first, seen[:1]), (second, seen[1:])):
        for batch in batches:
            metric.update(*batch)
    first.merge(second)

    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert isinstance(whole, Metric)


@every_metric
def test_nothing_seen_is_no_number_and_reset_forgets(kind, seen):
    metric = kind()
    metric.update(*seen[0])

    metric.reset()

    assert math.isnan(metric.compute())


def test_a_perplexity_beyond_all_numbers_is_infinite():
    metric = Perplexity()

    metric.update(torch.tensor(1e6), 2)

    assert metric.compute() == math.inf
