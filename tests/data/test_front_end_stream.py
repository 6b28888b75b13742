"""Laws of features that come in pieces: end to end they are those of the whole recording, to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import ConfigError
from etude.data.audio.config import FeaturesConfig
from etude.data.audio.front_end import FrontEnd, add_recordings
from etude.data.audio.front_end_stream import FrontEndStream

RATE = 8000
KINDS = {
    "global": {"normalise": "global"},
    "speaker, by bin": {"normalise": "speaker", "deviation": "bin"},
    "as they are": {"normalise": None},
    "deltas": {"normalise": "global", "deltas": 1},
    "more deltas, stacked": {"normalise": "global", "deltas": 2, "stack": 3},
    "stacked": {"normalise": None, "stack": 4},
    "cepstra": {"normalise": None, "type": "mfcc", "deltas": 2},
    "windows apart": {"normalise": None, "window": 10.0, "shift": 25.0},
}


def front_end(**options):
    config = FeaturesConfig(mel_bins=20, **options)
    waves = [torch.randn(4000, generator=torch.Generator().manual_seed(seed)) * 0.1 for seed in (1, 2)]
    statistics = {}
    add_recordings(statistics, config, RATE, waves, ["ann", "bob"])
    return FrontEnd(config, RATE, statistics)


def wave_of(samples, seed=5):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_any_pieces_give_the_features_of_the_whole(kind):
    made = front_end(**KINDS[kind])

    @given(st.integers(0, 4000), st.lists(st.integers(0, 900), max_size=12))
    @settings(max_examples=25, deadline=None)
    def holds(samples, pieces):
        wave = wave_of(samples)
        whole, _ = made.made([wave])
        stream = FrontEndStream(made)

        first, found = 0, []
        for size in [*pieces, samples]:
            found.append(stream.push(wave[first : first + size]))
            first += size
        found.append(stream.end())

        assert torch.equal(torch.cat(found), whole)

    holds()


def test_the_deltas_of_a_frame_wait_for_the_frames_they_look_at_and_no_longer():
    stream = FrontEndStream(front_end(normalise=None, deltas=2))
    window, shift = 200, 80

    found = [len(stream.push(wave_of(size))) for size in (window + 3 * shift, shift, shift, 10 * shift)]

    assert found == [0, 1, 1, 10]


def test_what_is_kept_does_not_grow():
    stream = FrontEndStream(front_end(normalise="global", deltas=2, stack=3))

    def kept():
        tensors = [stream._extractor._kept, stream._deltas._kept_NF, stream._stack._kept_NF]
        return sum(one.untyped_storage().nbytes() for one in tensors)

    sizes = []
    for _ in range(40):
        stream.push(wave_of(2400))
        sizes.append(kept())

    assert max(sizes[20:]) == max(sizes[:20])


@pytest.mark.parametrize(
    ("options", "key"), [({"normalise": "utterance"}, "data.features.normalise"), ({"dither": 1.0}, "dither must be 0")]
)
def test_what_looks_at_the_whole_recording_is_refused_naming_its_key(options, key):
    with pytest.raises(ConfigError, match=key):
        FrontEndStream(front_end(**{"normalise": None, **options}))
