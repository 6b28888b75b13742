"""What a config says of a run over arrays of numbers: which files hold them, and its model."""

from typing import Annotated, Literal

from pydantic import Field

from etude.base.config.components import Imported, component
from etude.base.config.fields import PathField, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.data.files.skipped import AllowanceField, Policy
from etude.model.frames.mlp import MlpConfig
from etude.model.frames.pooling import PoolingKind
from etude.tasks.classification.audio_config import Pooled, SoundBlstmConfig, SoundCnnConfig, SoundConformerConfig
from etude.tasks.classification.config import SampleRun
from etude.tasks.classification.tabular_config import Name, Names, several
from etude.tasks.config import DataSection


class ArrayMlpConfig(MlpConfig, Pooled):
    """`[model] type = "mlp"`: linear layers over each place."""

    pooling: PoolingKind = "mean"
    """The mean of places, mean and deviation by attention (Okabe et al. 2018), or the last one."""


MODELS: dict[str, type[Section]] = {
    "mlp": ArrayMlpConfig,
    "cnn": SoundCnnConfig,
    "conformer": SoundConformerConfig,
    "blstm": SoundBlstmConfig,
}


class ArrayDataConfig(DataSection):
    """Arrays of numbers, vectors or sequences of them, with labels or numbers to predict."""

    exclusive = (("label", "labels", "targets"),)

    type: Literal["arrays"]
    """Says that samples are arrays; without it they are texts."""

    train: Switch[PathField] = None
    """Training data: an .npz file with `x`, a table that lists .npy files, or Parquet with a column of lists."""

    val: Annotated[Switch[PathField], means("validation", shared="always", governs=("stopping",))] = None
    """Validation data, given like `train`."""

    test: Annotated[Switch[PathField], means("none", shared="always")] = None
    """Test data, given like `train`."""

    array: Name = "array"
    """The column of a table that names the file of each sample or, of Parquet, holds its numbers."""

    label: Switch[Name] = "label"
    """The column, or the array of an .npz file, of the label."""

    labels: Switch[Names] = None
    """In place of `label`, with several labels a sample: a column for each, or the one that lists them."""

    separator: Name = ";"
    """What stands between labels in the one column that lists them."""

    targets: Switch[Names] = None
    """In place of `label`: columns of numbers that are predicted."""

    workers: Annotated[int, means("none", shared="always")] = Field(default=0, ge=0)
    """Processes that load batches in parallel with training; 0 loads in the training process."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What to do with a bad sample: end the run with its place and reason, or leave it out and list it."""

    max_skipped: AllowanceField = "1%"
    """How many samples may be left out, as a number or as a share of the data; more are an error."""

    @property
    def policy(self) -> Policy:
        """What the section says about bad samples."""
        return Policy(None, self.on_bad_sample, self.max_skipped)

    @property
    def predicted(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return several(self.labels or self.targets or self.label)


class ArrayRun(SampleRun):
    """A run over arrays."""

    data: ArrayDataConfig = ArrayDataConfig(type="arrays")
    model: Annotated[
        ArrayMlpConfig | SoundCnnConfig | SoundConformerConfig | SoundBlstmConfig | Imported, component(MODELS, "mlp")
    ] = ArrayMlpConfig()
