"""Laws of recordings that are mixed: what is drawn, what is heard, and what it costs (Zhang et al. 2018)."""

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from scipy import stats

from etude.base.says import unheard
from etude.data.audio.augment import Augment
from etude.data.audio.config import AugmentConfig
from etude.model.losses import CrossEntropy
from etude.tasks.classification.audio import AUDIO
from etude.tasks.classification.audio_config import SoundRun
from etude.tasks.classification.goals.one_label import OneLabelGoal
from etude.tasks.classification.goals.several_labels import SeveralLabelsGoal

RATE = 8000
SIZES = [4000, 2500, 3000, 6000, 2000]


def augment(**changes):
    return Augment(AugmentConfig(**{"mix": 1.0, **changes}), RATE)


def test_what_is_drawn_follows_from_seed_epoch_and_sample_alone():
    several, alone = (augment(mix=0.5).partners(3, 2, rows, 50) for rows in (np.arange(50), np.array([17])))
    later = augment(mix=0.5).partners(3, 3, np.arange(50), 50)

    assert (several.others[17], several.shares[17]) == (alone.others[0], alone.shares[0])
    assert (several.others != later.others).any()


def test_no_recording_is_mixed_with_itself_and_its_own_share_is_the_larger_one():
    rows = np.arange(4000)

    others, shares = augment(mix_alpha=0.4).partners(1, 0, rows, 4000)

    assert (others != rows).all()
    assert (others >= 0).all()
    assert (others < 4000).all()
    assert len(set(others.tolist())) > 2000
    folded = np.abs(stats.beta(0.4, 0.4).rvs(20000, random_state=1) - 0.5) + 0.5
    assert stats.ks_2samp(shares, folded).pvalue > 0.01


def test_the_share_of_mixed_recordings_is_as_asked_and_one_alone_is_left():
    rows = np.arange(4000)

    some = augment(mix=0.25).partners(1, 0, rows, 4000)
    alone = augment().partners(1, 0, np.array([0]), 1)

    assert (some.shares < 1).mean() == pytest.approx(0.25, abs=0.03)
    assert (some.others[some.shares == 1] == rows[some.shares == 1]).all()
    assert (alone.others.tolist(), alone.shares.tolist()) == ([0], [1.0])


@pytest.fixture
def config(tmp_path):
    draw = np.random.default_rng(1)
    lines = ["path,label,tags"]
    for number, size in enumerate(SIZES):
        wave = (0.05 * (number + 1) * draw.standard_normal(size)).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", wave, RATE, subtype="FLOAT")
        lines.append(f"{number}.wav,{'abc'[number % 3]},{'x;y' if number % 2 else 'x'}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")

    def made(**data):
        given = {"type": "audio", "train": str(tmp_path / "train.csv"), **data}
        where = {"dir": str(tmp_path / "runs"), "name": "mixing"}
        return SoundRun.model_validate({"task": {"type": "classification"}, "data": given, "run": where})

    return made


def level(wave):
    return wave.square().mean().sqrt()


def test_what_is_heard_is_both_at_one_level_and_the_targets_are_their_shares(config, tmp_path):
    run = config(augment={"mix": 1.0, "mix_alpha": 0.5}, features={"mel_bins": 20})
    sounds = AUDIO.open(run, ["train"], unheard)
    rows = np.arange(5)

    mixed = sounds.samples("train", changed=True).batch(rows)
    plain = sounds.samples("train", changed=False).batch(rows)

    others, shares = Augment(run.data.augment, RATE).partners(run.run.seed, 0, rows, 5)
    waves = [torch.from_numpy(soundfile.read(tmp_path / f"{n}.wav", dtype="float32")[0]) for n in range(5)]
    made = []
    for own, other, share in zip(waves, others.tolist(), shares.tolist(), strict=True):
        beside = torch.zeros_like(own)
        size = min(len(own), len(waves[other]))
        beside[:size] = waves[other][:size] * level(own) / level(waves[other])
        made.append(share * own + (1 - share) * beside)
    features, lengths = sounds.front_end.made(made, [""] * 5)
    for row, wanted in enumerate(torch.split(features, lengths)):
        torch.testing.assert_close(mixed.features[row, : lengths[row]], wanted, rtol=1e-3, atol=1e-3)
    assert mixed.lengths.tolist() == plain.lengths.tolist() == lengths
    assert plain.targets.tolist() == [0, 1, 2, 0, 1]
    hot = F.one_hot(plain.targets, 3)
    share = torch.from_numpy(shares)[:, None]
    torch.testing.assert_close(mixed.targets, (share * hot + (1 - share) * hot[others]).float())


def test_several_labels_are_shared_too(config):
    run = config(labels="tags", augment={"mix": 1.0})
    sounds = AUDIO.open(run, ["train"], unheard)

    mixed = sounds.samples("train", changed=True).batch(np.arange(5)).targets
    plain = sounds.samples("train", changed=False).batch(np.arange(5)).targets

    others, shares = Augment(run.data.augment, RATE).partners(run.run.seed, 0, np.arange(5), 5)
    share = torch.from_numpy(shares)[:, None]
    torch.testing.assert_close(mixed, (share * plain + (1 - share) * plain[others]).float())


def drawn():
    draw = torch.Generator().manual_seed(5)
    return torch.randn(6, 4, generator=draw), torch.tensor([0, 1, 2, 3, 1, 0]), torch.tensor([1, 1, 0, 2, 3, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0, 3.0])])
def test_the_loss_is_the_mean_of_that_of_both_labels(smoothing, weights):
    outputs, own, other = drawn()
    share = torch.linspace(0.5, 1.0, 6)
    goal = OneLabelGoal("abcd", ["accuracy"], loss=CrossEntropy(smoothing), class_weights=weights)
    targets = share[:, None] * F.one_hot(own, 4) + (1 - share)[:, None] * F.one_hot(other, 4)

    loss = goal.training_loss(outputs, targets)

    each = [
        F.cross_entropy(outputs, labels, weight=weights, label_smoothing=smoothing, reduction="none")
        for labels in (own, other)
    ]
    wanted = (share * each[0] + (1 - share) * each[1]).sum()
    torch.testing.assert_close(loss.sum, wanted)
    given = torch.ones(4) if weights is None else weights
    assert float(loss.count) == pytest.approx(float((share * given[own] + (1 - share) * given[other]).sum()))


def test_the_loss_of_several_labels_is_the_mean_of_that_of_both():
    outputs, *_ = drawn()
    own, other = torch.randint(2, (2, 6, 4), generator=torch.Generator().manual_seed(6)).float()
    share, weights = torch.linspace(0.5, 1.0, 6)[:, None], torch.tensor([1.0, 0.5, 2.0, 3.0])
    goal = SeveralLabelsGoal("abcd", ["f1_micro"], pos_weight=weights)

    loss = goal.training_loss(outputs, share * own + (1 - share) * other)

    each = [
        F.binary_cross_entropy_with_logits(outputs, labels, pos_weight=weights, reduction="none")
        for labels in (own, other)
    ]
    torch.testing.assert_close(loss.sum, (share * each[0] + (1 - share) * each[1]).sum())
