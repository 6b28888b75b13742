"""What configs of the classification task say, whatever samples are: what it measures, by which loss, and how."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section, switched_on
from etude.data.files.names import ColumnField, ColumnName
from etude.model.losses import ImportedLoss, LossConfig, MeanSquaredErrorConfig
from etude.model.losses.config import LossSection
from etude.model.losses.sample_config import SAMPLE_LOSSES, ConcordanceConfig, FocalConfig
from etude.tasks.config import Config, TaskSection
from etude.train.config import Split, SplitsField, TrainConfig

Averaged = Literal[
    "precision_macro",
    "precision_micro",
    "precision_weighted",
    "precision_per_class",
    "recall_macro",
    "recall_micro",
    "recall_weighted",
    "recall_per_class",
    "f1_macro",
    "f1_micro",
    "f1_weighted",
    "f1_per_class",
]
Ranking = Literal["auroc", "average_precision"]
OfLabel = Literal["accuracy", "balanced_accuracy"]
OfLabels = Literal["subset_accuracy", "hamming_loss"]
OfNumbers = Literal["mse", "rmse", "mae", "r2", "ccc", "pearson"]
AnyMetric = Literal[OfLabel, OfLabels, Averaged, Ranking, OfNumbers]
SAVED: tuple[Split, ...] = ("val", "test")
"""Splits whose outputs are saved unless the config says otherwise."""
LOSSES: dict[str, type[Section]] = {"cross_entropy": LossConfig, "mse": MeanSquaredErrorConfig, **SAMPLE_LOSSES}


class Predicted(NamedTuple):
    """What fits one kind of target."""

    says: str
    """What is predicted, as messages say it."""
    losses: tuple[str, ...]
    """By the names of `loss.type`; the first is taken unless the config says otherwise."""
    metrics: tuple[str, ...]
    """Taken unless the config says otherwise."""
    others: tuple[str, ...]
    """Further metrics that there are."""


_AVERAGED: tuple[str, ...] = Averaged.__args__  # type: ignore[attr-defined]
KINDS = {
    "label": Predicted(
        "labels, one a sample",
        ("cross_entropy", "focal"),
        ("accuracy", "balanced_accuracy", "f1_macro"),
        (*_AVERAGED, "auroc", "average_precision"),
    ),
    "labels": Predicted(
        "several labels a sample",
        ("binary_cross_entropy", "focal"),
        ("subset_accuracy", "hamming_loss", "f1_micro", "f1_macro"),
        (*_AVERAGED, "auroc", "average_precision"),
    ),
    "numbers": Predicted(
        "numbers",
        ("mse", "mae", "huber", "ccc"),
        ("mse", "mae", "r2"),
        ("rmse", "ccc", "pearson"),
    ),
}
"""By the kind of target."""
COMPARES = {"cross_entropy": "one label", "focal": "labels", "binary_cross_entropy": "several labels"}
"""What a loss compares; any other compares numbers."""


class ClassificationConfig(TaskSection):
    """`[task] type = "classification"`."""

    type: Literal["classification"] = "classification"
    class_weights: Switch[Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]]] = None
    """Weigh each class in the training loss; balanced: by samples / (classes x samples of the class); or a table."""
    metrics: Annotated[list[AnyMetric], means("validation")] = Field(
        default_factory=lambda: list(KINDS["label"].metrics)  # type: ignore[arg-type]
    )
    """What is measured, as scikit-learn defines it; `f1_per_class` gives `f1/LABEL` of every label."""
    thresholds: Annotated[
        Switch[Literal["f1"] | Annotated[float, Field(gt=0, lt=1)] | dict[str, Annotated[float, Field(gt=0, lt=1)]]],
        means("validation", governs=("weights",)),
    ] = None
    """Probability from which on a label is predicted, of several or of the second of two; a number, a table by label,
    or f1: each validation of training chooses what makes the F1 of a label largest; default: 0.5."""
    by: Annotated[Switch[ColumnField], means("validation")] = None
    """A column of the data; metrics are also of each of its values, as `accuracy/by/VALUE`."""


class ClassificationTrainConfig(TrainConfig):
    """How to train a classifier: as anything else, but its outputs are saved unless said otherwise."""

    save_outputs: SplitsField = Field(default_factory=lambda: list(SAVED))


def kind_of(data: object) -> str:
    """The kind of target that a section `[data]`, as plain values, asks for."""
    if not isinstance(data, Mapping):
        return "label"
    given = [key for key in ("labels", "targets") if switched_on((key,), data)]
    return {"labels": "labels", "targets": "numbers"}[given[-1]] if given else "label"


class SampleRun(Config):
    """A run whose task predicts labels or numbers of samples."""

    kind: ClassVar[str] = "classification"

    task: Annotated[ClassificationConfig | Imported, component({"classification": ClassificationConfig})]
    loss: Annotated[LossSection, component(LOSSES, "cross_entropy", ImportedLoss)] = LossConfig()
    train: ClassificationTrainConfig = ClassificationTrainConfig()

    @property
    def predicts(self) -> str:
        """The kind of target."""
        return kind_of(self.data.model_dump())

    @property
    def by(self) -> ColumnName | None:
        """The column that metrics are by."""
        match self.task:
            case ClassificationConfig(by=by):
                return by
        return None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        """Take the loss and the metrics of the kind of target, where the config says nothing of them."""
        kind = KINDS[kind_of(data.get("data"))] if isinstance(data, Mapping) else KINDS["label"]
        if not isinstance(data, Mapping) or kind is KINDS["label"]:
            return data
        loss, task = data.get("loss", {}), data.get("task", {})
        filled: dict[Any, Any] = dict(data)
        if isinstance(loss, Mapping) and "type" not in loss:
            filled["loss"] = {"type": kind.losses[0], **loss}
        if isinstance(task, str):
            task = {"type": task}
        if isinstance(task, Mapping) and task.get("type") == cls.kind:
            filled["task"] = {"metrics": list(kind.metrics), **task}
        return filled

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        found, kind = self.loss.type, KINDS[self.predicts]
        if isinstance(self.task, ClassificationConfig) and found in LOSSES and found not in kind.losses:
            taken = " or ".join(f'"{name}"' for name in kind.losses)
            raise ValueError(
                f'loss.type "{found}" compares {COMPARES.get(found, "numbers")}, but classification predicts '
                f"{kind.says}: take {taken}"
            )
        return self

    @model_validator(mode="after")
    def _metrics_fit(self) -> Self:
        match self.task:
            case ClassificationConfig(metrics=wanted):
                kind = KINDS[self.predicts]
                known = dict.fromkeys((*kind.metrics, *kind.others))
                other = next((name for name in wanted if name not in known), None)
                if other is not None:
                    raise ValueError(
                        f'task.metrics: "{other}" is no metric of {kind.says}; there is {", ".join(known)}'
                    )
        return self

    @model_validator(mode="after")
    def _weights_fit_the_loss(self) -> Self:
        match self.task, self.loss:
            case ClassificationConfig(class_weights=None) | Imported(), _:
                return self
            case _, LossConfig(z_loss=0.0) | FocalConfig() if self.predicts == "label":
                return self
        raise ValueError(
            'task.class_weights needs one label a sample, and loss.type = "cross_entropy" without loss.z_loss or '
            '"focal"'
        )

    @property
    def chooses_thresholds(self) -> bool:
        """Whether validations choose from which probability on labels are predicted."""
        return isinstance(self.task, ClassificationConfig) and self.task.thresholds == "f1"

    @model_validator(mode="after")
    def _thresholds_are_chosen_in_time(self) -> Self:
        saved = self.train
        if self.chooses_thresholds and saved.save_outputs_every == "validation" and "val" in saved.save_outputs:
            raise ValueError(
                'task.thresholds = "f1" is chosen at the end of a validation, too late for its outputs: take '
                'train.save_outputs_every = "best"'
            )
        return self

    @model_validator(mode="after")
    def _a_step_is_one_batch(self) -> Self:
        match self.loss:
            case ConcordanceConfig() if self.train.accumulate != 1:
                raise ValueError(
                    'loss.type "ccc" is of all samples of a step, which train.accumulate cuts into batches: raise '
                    "train.batch_size in its place"
                )
        return self
