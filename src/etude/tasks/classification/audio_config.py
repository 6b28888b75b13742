"""What a config says of a run that tells what recordings are: which manifests list them, and its model."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.components import Imported, component
from etude.base.config.fields import Switch
from etude.base.config.section import Section
from etude.data.files.names import SOUNDING
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.classifier import WindowPooling, Windows
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.pooling import PoolingKind
from etude.model.losses import LossConfig
from etude.model.losses.sample_config import BinaryCrossEntropyConfig
from etude.tasks.classification.config import ClassificationConfig, SampleRun
from etude.tasks.classification.tabular_config import Name, Names, several
from etude.tasks.recordings import RecordingsSection


class WindowsConfig(Section):
    """`[model.windows]`: long recordings in windows, each with outputs of its own."""

    frames: int = Field(200, ge=1)
    """Frames of a window; a shorter recording is one of its own length."""
    shift: int = Field(100, ge=1)
    """Frames from one to the next; the last one ends with the recording."""
    pooling: WindowPooling = "mean"
    """A recording's outputs: the mean of its windows', or for each the largest, where what counts is heard briefly."""


class Pooled(Section):
    """What is made of frames."""

    pooling: PoolingKind = "attention"
    """The mean of frames, mean and deviation by attention (Okabe et al. 2018), or the last one."""
    windows: Switch[WindowsConfig] = None
    """Look at long recordings in windows."""

    @property
    def cut(self) -> Windows | None:
        """The windows, as the model takes them."""
        return None if self.windows is None else Windows(**self.windows.model_dump())


class SoundCnnConfig(CnnConfig, Pooled):
    """`[model] type = "cnn"`: convolutions that stride time at once."""


class SoundConformerConfig(ConformerConfig, Pooled):
    """`[model] type = "conformer"`: a Conformer (Gulati et al. 2020)."""


class SoundBlstmConfig(BlstmConfig, Pooled):
    """`[model] type = "blstm"`: LSTMs in both directions or one."""


MODELS: dict[str, type[Section]] = {
    "cnn": SoundCnnConfig,
    "conformer": SoundConformerConfig,
    "blstm": SoundBlstmConfig,
}


class SoundDataConfig(RecordingsSection):
    """Recordings with labels or numbers to predict."""

    exclusive = (("label", "labels", "targets"),)
    roles = SOUNDING

    type: Literal["audio"]
    """Says that samples are recordings; without it they are texts."""

    label: Switch[Name] = "label"
    """The column of the label."""

    labels: Switch[Names] = None
    """In place of `label`, with several labels a sample: a column for each, or the one that lists them."""

    separator: Name = ";"
    """What stands between labels in the one column that lists them."""

    targets: Switch[Names] = None
    """In place of `label`: columns of numbers that are predicted."""

    @property
    def text_column(self) -> str | int:
        """No column but that of the path is needed: what is predicted is read beside it."""
        return self.path

    @property
    def predicted(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return several(self.labels or self.targets or self.label)


class SoundRun(SampleRun):
    """A run over recordings."""

    data: SoundDataConfig = SoundDataConfig(type="audio")
    model: Annotated[SoundCnnConfig | SoundConformerConfig | SoundBlstmConfig | Imported, component(MODELS, "cnn")] = (
        SoundCnnConfig()
    )

    @model_validator(mode="after")
    def _labels_can_be_mixed(self) -> Self:
        match self.task, self.loss, self.data.augment.mix:
            case _, _, 0:
                return self
            case ClassificationConfig(), LossConfig(z_loss=0.0) | BinaryCrossEntropyConfig(), _:
                return self
        raise ValueError(
            'data.augment.mix needs labels to mix, and loss.type = "cross_entropy" without loss.z_loss or '
            '"binary_cross_entropy", of which it takes the mean over both recordings'
        )
