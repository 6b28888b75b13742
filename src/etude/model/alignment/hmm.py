"""The best path of a hidden Markov model over a frame-wise network: each label lasts a frame or more.

Legend: B sequences, T frames, L labels, V classes.
"""

import math

from torch import Tensor

from etude.model.alignment.result import Alignment
from etude.model.alignment.viterbi import Places, best_path
from etude.model.exact import exact


def hmm_alignment(
    logs_BTV: Tensor, lengths_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor, *, silence: int | None = None
) -> Alignment:
    """The best path on which each label has one frame or more, and silence, where there is such a class, any number.

    Silence may lie before, between and behind the labels. All ways on are as probable as each other, so that a path's
    score is the sum of `logs_BTV` along it; those are log-probabilities, or what `scaled` makes of them. Two equal
    labels may follow each other without silence: `indices` tell them apart. The path is found on the logs' device, in
    float32 (float64 stays). Of paths that are equal it takes, from the last frame back, the later place. A sequence
    with fewer frames than labels has no path, nor has one that has frames but neither labels nor silence.

    >>> import torch
    >>> logs = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6], [0.1, 0.2, 0.7]]]).log()
    >>> lengths, labels = torch.tensor([4]), torch.tensor([[1, 2]])
    >>> hmm_alignment(logs, lengths, labels, torch.tensor([2])).classes.tolist()
    [[1, 1, 2, 2]]
    >>> hmm_alignment(logs, lengths, labels, torch.tensor([2]), silence=0).classes.tolist()
    [[0, 1, 2, 2]]
    """
    between = 0 if silence is None else silence
    places = Places.of(targets_BL, target_lengths_B, between, closed=silence is None)
    return best_path(logs_BTV, lengths_B, places, target_lengths_B)


def scaled(logs_BTV: Tensor, priors_V: Tensor, prior_scale: float) -> Tensor:
    """Log-probabilities of classes without `prior_scale` of their log-priors: what a class says of a frame.

    With a scale of 1 they are, but for a constant of each frame, log-likelihoods by the theorem of Bayes (Bourlard and
    Morgan 1994, "Connectionist Speech Recognition", chapter 7). Priors are `priors_V` in logs, as `LabelCounts.logs`
    has them. Raises ValueError where one is not finite: of a class that never is, nothing can be said.
    """
    if not priors_V.isfinite().all():
        raise ValueError("Every class needs a prior above 0: count them with a floor.")
    if math.isnan(prior_scale) or math.isinf(prior_scale):
        raise ValueError(f"prior_scale must be a finite number, but is {prior_scale}.")
    logs_BTV = exact(logs_BTV)
    return logs_BTV - prior_scale * priors_V.to(logs_BTV)
