"""What several runs answer together: the mean of their probabilities, or of the numbers that they predict.

Legend: M members, N samples, K scores.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.app.ensemble.joined import Joined, Member
from etude.base.errors import ConfigError

Columns = dict[str, list[Any]]
Numbers = NDArray[np.float64]
CLOSE = 1e-3
"""How far probabilities of all labels may be from 1 together."""
LEAST = 1e-12
"""What a probability of 0 is taken for in a loss."""
HALF = 0.5


def averaged(joined: Joined, *, softmax: bool = False) -> Columns:
    """The rows of an ensemble: sample, source where there is one, target, prediction, scores and loss.

    Scores are averaged where they are probabilities: of one label among several, whose likeliest is predicted, or of
    labels that each are there or not; `softmax` makes the former of logits. Without scores, predicted numbers are
    averaged. Raises ConfigError for anything else, and where the shapes or the labels of two runs differ.
    """
    columns: Columns = {name: joined.column(name) for name in ("sample", "source", "target")}
    if not any(columns["source"]):
        del columns["source"]
    if all(answer.get("scores") is None for member in joined.members for answer in member.answers):
        return columns | _of_numbers(joined, columns["target"])
    scores_MNK = _scores(joined.members, "scores")
    labels = _labels(joined.members, scores_MNK.shape[-1])
    if all(isinstance(one, list) for one in columns["target"]):
        return columns | _of_several(joined.members, scores_MNK, labels, columns["target"])
    return columns | _of_one(
        joined.members, _probabilities(joined.members, scores_MNK, softmax=softmax), labels, columns
    )


# -- shapes ------------------------------------------------------------------------------------------------------------


def _scores(members: Sequence[Member], name: str) -> Numbers:
    """A column of numbers of all members, [M, N, K]. Raises ConfigError where one has another shape, or none."""
    found: list[Numbers] = []
    for member in members:
        try:
            rows_NK = np.asarray([answer.get(name) for answer in member.answers], dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigError(
                f"The {name} of {member.name} cannot be averaged: they must be as many numbers for every sample."
            ) from None
        found.append(rows_NK.reshape(len(rows_NK), -1))
    for member, rows_NK in zip(members, found, strict=True):
        if rows_NK.shape != found[0].shape:
            raise ConfigError(
                f"The {name} of {member.name} are {rows_NK.shape[1]} a sample, those of {members[0].name} "
                f"{found[0].shape[1]}: only those of one shape can be averaged."
            )
        if np.isnan(rows_NK).any():
            raise ConfigError(f"The {name} of {member.name} are not all known, so they cannot be averaged.")
    return np.stack(found)


def _labels(members: Sequence[Member], count: int) -> Sequence[Any]:
    """The labels in the order of the scores; numbers where runs keep none. Raises ConfigError where they differ."""
    told = [member.labels for member in members]
    for member, labels in zip(members, told, strict=True):
        if labels != told[0]:
            raise ConfigError(f"{member.name} has other labels than {members[0].name}, or in another order.")
    labels = told[0]
    return range(count) if labels is None or len(labels) != count else labels


def _probabilities(members: Sequence[Member], scores_MNK: Numbers, *, softmax: bool) -> Numbers:
    """Scores as probabilities. Raises ConfigError where they are none."""
    if softmax:
        powers_MNK = np.exp(scores_MNK - scores_MNK.max(-1, keepdims=True))
        made: Numbers = powers_MNK / powers_MNK.sum(-1, keepdims=True)
        return made
    for member, scores_NK in zip(members, scores_MNK, strict=True):
        wrong = (scores_NK < 0).any(1) | (np.abs(scores_NK.sum(1) - 1) > CLOSE)
        if wrong.any():
            place = int(wrong.argmax())
            raise ConfigError(
                f"The scores of {member.name} are no probabilities: those of sample "
                f"{member.answers[place].get('sample')} add up to {scores_NK[place].sum():.4g}. Of logits, --softmax "
                f"makes probabilities."
            )
    return scores_MNK


# -- answers -----------------------------------------------------------------------------------------------------------


def _of_one(members: Sequence[Member], scores_MNK: Numbers, labels: Sequence[Any], columns: Columns) -> Columns:
    """The likeliest label, or of two the second from the threshold on, with the cross entropy."""
    mean_NK = scores_MNK.mean(0)
    numbers = {str(label): number for number, label in enumerate(labels)}
    _refuse_texts(members, scores_MNK, labels)
    least = _thresholds(members[0], labels, binary=True)
    chosen_N = mean_NK.argmax(1) if least is None else (mean_NK[:, 1] >= least[1]).astype(int)
    places = [numbers.get(str(target)) for target in columns["target"]]
    losses = [None if place is None else -math.log(max(LEAST, mean_NK[row, place])) for row, place in enumerate(places)]
    return {"prediction": [labels[number] for number in chosen_N], "scores": mean_NK.tolist(), "loss": losses}


def _refuse_texts(members: Sequence[Member], scores_MNK: Numbers, labels: Sequence[Any]) -> None:
    """Refuse scores that are not of labels, but for example of several translations."""
    known = set(map(str, labels))
    for member in members:
        other = next((one["prediction"] for one in member.answers if str(one.get("prediction")) not in known), None)
        if other is not None:
            raise ConfigError(
                f"The scores of {member.name} are not those of labels: it has predicted {str(other)[:60]!r}, which is "
                f"none of the {scores_MNK.shape[-1]}."
            )


def _of_several(members: Sequence[Member], scores_MNK: Numbers, labels: Sequence[Any], targets: list[Any]) -> Columns:
    """The labels that are likelier than their thresholds, with the mean binary cross entropy of a label."""
    mean_NK = scores_MNK.mean(0)
    if (mean_NK < 0).any() or (mean_NK > 1).any():
        raise ConfigError(f"The scores of {members[0].name} and others are no probabilities: they must be 0 to 1.")
    given = _thresholds(members[0], labels, binary=False)
    least = [HALF] * len(labels) if given is None else given
    there_NK = mean_NK >= np.asarray(least)
    true_NK = np.asarray([[label in target for label in labels] for target in targets], dtype=bool)
    right_NK = np.where(true_NK, mean_NK, 1 - mean_NK)
    losses = (-np.log(np.maximum(LEAST, right_NK))).mean(1)
    predicted = [[label for label, there in zip(labels, row, strict=True) if there] for row in there_NK]
    return {"prediction": predicted, "scores": mean_NK.tolist(), "loss": losses.tolist()}


def _thresholds(member: Member, labels: Sequence[Any], *, binary: bool) -> list[float] | None:
    """The least probability of each label, as the first run's config says; of one among more than two there is none."""
    match member.thresholds:
        case float() as same if not binary or len(labels) == 2:  # noqa: PLR2004 - one of two
            return [same] * len(labels)
        case Mapping() as table if not binary:
            return [table.get(label, HALF) for label in labels]
        case Mapping() as table if len(labels) == 2:  # noqa: PLR2004 - one of two
            first, second = labels
            return [HALF, table[second] if second in table else 1 - table[first]]
    return None


def _of_numbers(joined: Joined, targets: list[Any]) -> Columns:
    """The mean of predicted numbers, with the mean squared error."""
    members = joined.members
    if any(isinstance(answer.get("prediction"), str) for member in members for answer in member.answers):
        raise ConfigError(
            f"{members[0].name} predicts texts without probabilities of labels, which cannot be averaged."
        )
    values_MNK = _scores(members, "prediction")
    mean_NK = values_MNK.mean(0)
    is_one = not isinstance(members[0].answers[0].get("prediction"), list)
    losses = [_squared(row, target) for row, target in zip(mean_NK, targets, strict=True)]
    unlist: Callable[[list[float]], Any] = (lambda row: row[0]) if is_one else list
    return {"prediction": list(map(unlist, mean_NK.tolist())), "loss": losses}


def _squared(mean_K: Numbers, target: Any) -> float | None:
    """The mean squared error of a sample; None where its target is not known."""
    try:
        known_K = np.asarray(target, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    error = float(np.nanmean(np.square(mean_K - known_K))) if known_K.shape == mean_K.shape else math.nan
    return None if math.isnan(error) else error
