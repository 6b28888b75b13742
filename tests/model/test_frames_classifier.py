import pytest
import torch

from etude.model.frames.classifier import FrameClassifier, Windows, cut
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.encoders import build_encoder

SMALL = CnnConfig(d_model=8, layers=1, subsample_channels=4, dropout=0.0)


def frames(*lengths):
    torch.manual_seed(1)
    return torch.randn(len(lengths), max(lengths), 5), torch.tensor(lengths)


@pytest.mark.parametrize("length", range(1, 14))
def test_windows_cover_a_sequence_and_end_where_it_does(length):
    features, lengths = frames(length, 13)

    windows, sizes, owners = cut(features, lengths, Windows(4, 3))

    mine = [window[:size] for window, size, owner in zip(windows, sizes.tolist(), owners, strict=True) if owner == 0]
    assert torch.equal(mine[0], features[0, : min(length, 4)])
    assert torch.equal(mine[-1], features[0, max(0, length - 4) : length])
    assert len(mine) == 1 + -(-max(0, length - 4) // 3)


@pytest.mark.parametrize(("pooling", "whole"), [("mean", torch.mean), ("max", torch.amax)])
def test_outputs_of_windows_are_averaged_or_the_largest(pooling, whole):
    torch.manual_seed(2)
    features, lengths = frames(10)
    model = FrameClassifier(build_encoder(SMALL, 5), 3, windows=Windows(4, 3, pooling)).eval()

    found = model(features, lengths)

    model._windows = None
    alone = [model(features[:, start : start + 4], torch.tensor([4])) for start in (0, 3, 6)]
    torch.testing.assert_close(found, whole(torch.stack(alone), 0))


@pytest.mark.parametrize("windows", [None, Windows(4, 3), Windows(50, 10), Windows(4, 3, "max")])
@pytest.mark.parametrize("pooling", ["mean", "attention", "last"])
def test_a_batch_equals_its_members(windows, pooling):
    torch.manual_seed(2)
    features, lengths = frames(10, 3, 1, 7)
    model = FrameClassifier(build_encoder(SMALL, 5), 3, pooling, windows).eval()

    together = model(features, lengths)

    for row, length in enumerate(lengths.tolist()):
        alone = model(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)
