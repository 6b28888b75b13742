"""Language models, as a type of task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.model.decoder import Decoder
from etude.tasks.best_lines import BestLines
from etude.tasks.language_model.build import build_task
from etude.tasks.language_model.config import MODELS, TextRun
from etude.tasks.language_model.data import Texts, prepare
from etude.tasks.language_model.flags import FLAGS
from etude.tasks.language_model.predictor import Completions, check_together
from etude.tasks.language_model.processor import TextProcessor
from etude.tasks.language_model.task import LanguageModelTask
from etude.tasks.own_form import write_own_form
from etude.tasks.parts import is_own_loss
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.tasks.transformers_library import write_model
from etude.train.task import Task

OWN_KEYS = frozenset({"text", "document_separator", "split", "split_by", "block_size", "packing"})
"""Keys of `[data]` that tell text from pairs where the task is the user's own."""


@final
class LanguageModelType(TaskType[TextRun, TextProcessor]):
    """Text in, what may follow it out."""

    config = TextRun
    flags = FLAGS

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether the model is one of text, or the data have keys of text."""
        model, data = config.get("model"), config.get("data")
        name = model.get("type") if isinstance(model, Mapping) else model
        return name in MODELS or (isinstance(data, Mapping) and not OWN_KEYS.isdisjoint(data))

    def processor(self, config: TextRun, folder: Path) -> TextProcessor:
        """The tokenizer that a run has kept."""
        del config
        return TextProcessor.stored(folder)

    def open(self, config: TextRun, splits: Sequence[str], say: Say, processor: TextProcessor | None = None) -> Texts:
        """Open and tokenise splits."""
        return prepare(config, splits, say, processor)

    def task(self, config: TextRun, processor: TextProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def counts_all_targets(self, config: TextRun) -> bool:
        """Whether the loss is Etude's own."""
        return is_own_loss(config)

    def check_flags(self, given: Mapping[str, object]) -> None:
        """Refuse flags that contradict each other."""
        check_together(given)

    def predictor(self, task: Task) -> Predictor:
        """Completes prompts."""
        return Completions(task) if isinstance(task, LanguageModelTask) else BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write a decoder as a GPT-2 or a Llama of the transformers library, another model in Etude's own form."""
        if not isinstance(task, LanguageModelTask) or not isinstance(task.model, Decoder):
            return write_own_form(task, kept, folder)
        from etude.tasks.language_model.export import exported_decoder

        if task.tokenizer is None:
            raise ConfigError("A language model is exported with its tokenizer, but the task has none.")
        return write_model(*exported_decoder(task.model, task.tokenizer), folder)


LANGUAGE_MODEL = LanguageModelType()
