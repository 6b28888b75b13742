"""Normalising, deltas and stacking of recordings that lie one after another."""

import json

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from etude.base.errors import DataError
from etude.data.audio.config import FeaturesConfig
from etude.data.audio.features import Extractor
from etude.data.audio.normalise import (
    Normaliser,
    Statistics,
    deltas,
    finished,
    gather,
    segment_sums,
    stack,
    stacked_lengths,
)

LENGTHS = [5, 0, 1, 37, 2, 300]


def features(lengths=LENGTHS, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(3, 2, (sum(lengths), width)).astype(np.float32))


@pytest.mark.parametrize("deviation", ["bin", "all", False])
def test_a_recording_is_normalised_alone_as_beside_others(deviation):
    normalise = Normaliser(FeaturesConfig(mel_bins=6, deviation=deviation))
    frames = features()

    together = normalise(frames, LENGTHS)

    alone = [normalise(part, [len(part)]) for part in frames.split(LENGTHS)]
    assert torch.equal(together, torch.cat(alone))


def test_a_recording_is_normalised_as_kaldi_does():
    frames = features([50])
    options = knf.CmvnOptions()
    options.norm_vars = True
    expected = knf.apply_cmvn(knf.compute_cmvn_stats(frames.numpy()), options, frames.numpy())

    normalised = Normaliser(FeaturesConfig(mel_bins=6, deviation="bin"))(frames, [50])

    torch.testing.assert_close(normalised, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_one_deviation_for_all_features_keeps_their_proportions():
    frames = features([40]) * torch.arange(1, 7)

    normalised = Normaliser(FeaturesConfig(mel_bins=6))(frames, [40])

    deviations = frames.std(0, correction=0)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.std(0, correction=0), deviations / deviations.square().mean().sqrt())


@pytest.mark.parametrize("kind", ["logmel", "mfcc"])
@pytest.mark.parametrize("energy", [True, False])
@pytest.mark.parametrize("deviation", ["bin", "all"])
def test_digital_silence_around_a_recording_moves_nothing(kind, energy, deviation):
    config = FeaturesConfig(type=kind, mel_bins=40, energy=energy, deviation=deviation)
    wave = 0.001 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    silence = torch.zeros(8000)
    extractor, normalise = Extractor(config, 8_000), Normaliser(config)
    bare, lengths = extractor.extract([wave])
    # A shift is 80 samples: whole frames of the recording come 100 frames later, and two more lie across each edge.
    filled, longer = extractor.extract([torch.cat([silence, wave, silence])])
    across = torch.zeros(longer[0], dtype=torch.bool)
    across[[98, 99, 100 + lengths[0], 101 + lengths[0]]] = True
    kept = filled[~across]

    normalised = normalise(kept, [len(kept)])

    torch.testing.assert_close(normalised[98:-98], normalise(bare, lengths), rtol=0, atol=1e-3)
    assert normalised[:98].min() >= normalised[98:-98].min()


def test_a_recording_of_digital_silence_becomes_zero():
    config = FeaturesConfig(mel_bins=40)
    silence, lengths = Extractor(config, 8_000).extract([torch.zeros(4000)])

    assert not Normaliser(config)(silence, lengths).any()


def test_level_of_a_recording_does_not_matter():
    config = FeaturesConfig(mel_bins=40)
    extractor, normalise = Extractor(config, 8_000), Normaliser(config)
    wave = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0))

    loud, quiet = (normalise(*extractor.extract([wave * gain])) for gain in (1.0, 0.001))

    torch.testing.assert_close(loud, quiet, rtol=0, atol=1e-3)


def test_statistics_are_those_of_all_frames_at_once():
    frames = features([1000]) + 1000
    gathered = Statistics.empty(6)
    for part in frames.split([1, 0, 499, 300, 200]):
        gathered.accumulate(part)

    kept = Statistics.from_json(json.loads(json.dumps(gathered.as_json())))

    assert kept.count == 1000
    np.testing.assert_allclose(kept.mean, frames.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept.deviation, frames.double().numpy().std(0), rtol=1e-9)
    assert kept.mean.tolist() == gathered.mean.tolist()
    assert kept.squares.tolist() == gathered.squares.tolist()


@pytest.mark.parametrize("deviation", ["bin", "all", False])
def test_each_speaker_has_statistics_of_its_own_and_a_stranger_those_of_everybody(deviation):
    frames, lengths = features([10, 20, 30]), [10, 20, 30]
    known = {name: Statistics.empty(6) for name in ("", "ann", "bob")}
    for name, part in (("ann", frames[:10]), ("bob", frames[10:30]), ("", frames[:30])):
        known[name].accumulate(part)
    config = FeaturesConfig(mel_bins=6, normalise="speaker", deviation=deviation)

    normalised = Normaliser(config, known)(frames, lengths, ["ann", "bob", "eve"])

    utterance = Normaliser(FeaturesConfig(mel_bins=6, deviation=deviation))
    torch.testing.assert_close(normalised[:30], utterance(frames[:30], [10, 20]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normalised[30:], Normaliser(config, known)(frames[30:], [30], [""]))
    glob = Normaliser(FeaturesConfig(mel_bins=6, normalise="global", deviation=deviation), known)
    torch.testing.assert_close(normalised[30:], glob(frames, lengths)[30:])


def test_statistics_that_are_missing_are_asked_for():
    with pytest.raises(DataError, match='"global" needs statistics of the training split'):
        Normaliser(FeaturesConfig(normalise="global"))


def test_a_speaker_that_is_missing_is_asked_for():
    known = {"": Statistics.empty(6)}

    with pytest.raises(DataError, match="2 recordings must have a speaker each, but 1 speakers"):
        Normaliser(FeaturesConfig(mel_bins=6, normalise="speaker"), known)(features([1, 2]), [1, 2], ["ann"])


def test_statistics_are_gathered_by_speaker_without_digital_silence():
    config = FeaturesConfig(mel_bins=40, normalise="speaker")
    extractor, known = Extractor(config, 8_000), {}
    waves = [0.1 * torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (4000, 3000, 5000)]
    sounds, lengths = extractor.extract(waves)
    silences = Extractor(config, 8_000).extract([torch.zeros(9000)] * 2)

    gather(known, sounds, lengths, ["ann", "bob", "ann"], config)
    gather(known, *silences, ["ann", "eve"], config)

    ann, bob, third = sounds.double().split(lengths)
    np.testing.assert_allclose(known["ann"].mean, torch.cat([ann, third]).mean(0), rtol=1e-12)
    np.testing.assert_allclose(known["bob"].deviation, bob.std(0, correction=0), rtol=1e-9)
    np.testing.assert_allclose(known[""].mean, sounds.double().mean(0), rtol=1e-12)
    assert {name: statistics.count for name, statistics in known.items()} == {
        "ann": lengths[0] + lengths[2],
        "bob": lengths[1],
        "eve": 0,
        "": sum(lengths),
    }


def test_an_hour_loses_no_digits():
    frames = features([200_000], 2) + 20

    normalised = Normaliser(FeaturesConfig(mel_bins=3, deviation="bin"))(frames, [200_000])

    torch.testing.assert_close(normalised.double().mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=5e-6)
    torch.testing.assert_close(normalised.double().std(0), torch.ones(2, dtype=torch.float64), rtol=0, atol=5e-6)


def test_no_normalising_leaves_features_alone():
    assert torch.equal(Normaliser(FeaturesConfig(mel_bins=6, normalise=False))(features(), LENGTHS), features())


def test_sums_are_those_of_each_recording():
    expected = torch.stack([part.sum(0) for part in features().split(LENGTHS)])

    torch.testing.assert_close(segment_sums(features(), LENGTHS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("orders", [1, 2])
def test_deltas_are_kaldis_and_know_one_recording_only(orders):
    options = knf.DeltaOptions(order=orders, window=2)
    expected = [knf.compute_deltas(options, part.numpy()) for part in features().split(LENGTHS) if len(part)]

    appended = deltas(features(), LENGTHS, orders)

    torch.testing.assert_close(appended, torch.from_numpy(np.concatenate(expected)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_stacked_frames_are_those_of_one_recording(size):
    stacked, lengths = stack(features(), LENGTHS, size)

    expected = []
    for part in features().split(LENGTHS):
        rows = [part[min(i, len(part) - 1)] for i in range(-(-len(part) // size) * size)]
        expected += [torch.cat(rows[i : i + size]) for i in range(0, len(rows), size)]
    assert torch.equal(stacked, torch.stack(expected))
    assert lengths == [-(-length // size) for length in LENGTHS] == stacked_lengths(LENGTHS, size).tolist()


def test_the_width_in_the_end_is_as_the_config_says():
    config = FeaturesConfig(type="mfcc", deltas=2, stack=3)

    frames, lengths = finished(features([7], 13), [7], config)

    assert frames.shape == (3, config.output_width)
    assert lengths == [3]
