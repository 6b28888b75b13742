"""Fine-tuning a model of the transformers library, as a type of task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.flags import refuse_together
from etude.tasks.hf.build import build_task
from etude.tasks.hf.config import HfRun
from etude.tasks.hf.data import Samples, prepare
from etude.tasks.hf.flags import FLAGS, TOGETHER
from etude.tasks.hf.folder import HfParts, stored_parts
from etude.tasks.hf.predictor import HfAnswers
from etude.tasks.hf.task import HfTask
from etude.tasks.parts import is_own_loss
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.tasks.transformers_library import write_model
from etude.train.task import Task


@final
class HfType(TaskType[HfRun, HfParts]):
    """A model that goes on from texts, answers prompts or chats."""

    config = HfRun
    flags = FLAGS

    def processor(self, config: HfRun, folder: Path) -> HfParts:
        """The model, as yet without its weights, and its tokenizer."""
        return stored_parts(folder, config.model.kind)

    def open(self, config: HfRun, splits: Sequence[str], say: Say, processor: HfParts | None = None) -> Samples:
        """Open and tokenise splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: HfRun, processor: HfParts) -> Task:
        """The task around the model that was read."""
        return build_task(config, processor)

    def counts_all_targets(self, config: HfRun) -> bool:
        """Whether the loss is Etude's own."""
        return is_own_loss(config)

    def predictor(self, task: Task) -> Predictor:
        """Answers lines."""
        return HfAnswers(_own(task))

    def check_flags(self, given: Mapping[str, object]) -> None:
        """Refuse flags that would be without effect. Raises ConfigError."""
        refuse_together(given, TOGETHER)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write what the library's `from_pretrained` reads."""
        del kept
        return write_model(_own(task).model, _own(task).tokenizer, folder)


def _own(task: Task) -> HfTask:
    assert isinstance(task, HfTask)  # no other is made of such a config
    return task


HF = HfType()
