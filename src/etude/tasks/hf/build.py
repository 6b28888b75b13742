"""From a config and what a folder of the transformers library gives to a task."""

from etude.base.errors import ConfigError
from etude.model.losses import CrossEntropy, CrossEntropyWithZ, LossConfig
from etude.tasks.hf.batch import IGNORED
from etude.tasks.hf.config import HfConfig, HfRun
from etude.tasks.hf.folder import HfParts
from etude.tasks.hf.task import HfTask


def build_task(config: HfRun, parts: HfParts) -> HfTask:
    """The task around a model that was read. Raises ConfigError for a loss that it cannot have."""
    given = config.loss
    if not isinstance(given, LossConfig):
        raise ConfigError(f'loss.type must be "cross_entropy" for the hf task, but is "{given.model_dump()["type"]}".')
    kind = CrossEntropyWithZ if given.z_loss != 0 else CrossEntropy
    assert isinstance(config.task, HfConfig)  # another task's data are never read as these
    return HfTask(parts, config.task, loss=kind.of(given, ignore_index=IGNORED))
