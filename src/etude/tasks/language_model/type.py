"""Language models, as a type of task."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.data.tokens.tokenizers import Tokenizer
from etude.model.decoder import Decoder
from etude.tasks.best_lines import BestLines
from etude.tasks.language_model.build import build_task
from etude.tasks.language_model.config import MODELS, TextRun
from etude.tasks.language_model.data import Texts, files_read, prepare
from etude.tasks.language_model.flags import FLAGS
from etude.tasks.language_model.predictor import Completions, check_together
from etude.tasks.language_model.processor import TextProcessor
from etude.tasks.language_model.task import LanguageModelTask
from etude.tasks.own_form import write_own_form
from etude.tasks.parts import is_own_loss
from etude.tasks.task_type import Kept, Predictor, TaskType
from etude.tasks.transformers_library import quiet, write_model
from etude.train.task import Task

OWN_KEYS = frozenset({"text", "document_separator", "split", "split_by", "block_size", "packing"})
"""Keys of `[data]` that tell text from pairs where the task is the user's own."""


@final
class LanguageModelType(TaskType[TextRun, TextProcessor]):
    """Text in, what may follow it out."""

    config = TextRun
    flags = FLAGS

    def recognises(self, config: Mapping[str, object]) -> bool:
        """Whether the model is one of text, or the data have keys of text."""
        match config:
            case {"model": {"type": str() as name}} | {"model": str() as name} if name in MODELS:
                return True
            case {"data": {**keys}}:
                return not OWN_KEYS.isdisjoint(keys)
        return False

    def processor(self, config: TextRun, folder: Path) -> TextProcessor:
        """The tokenizer that a run has kept."""
        del config
        return TextProcessor.stored(folder)

    def open(self, config: TextRun, splits: Sequence[str], say: Say, processor: TextProcessor | None = None) -> Texts:
        """Open and tokenise splits."""
        return prepare(config, splits, say, processor)

    def files(self, config: TextRun, split: str) -> Iterable[Path]:
        """Files of text; what else a folder holds counts as nothing."""
        return files_read(config, split)

    def task(self, config: TextRun, processor: TextProcessor) -> Task:
        """The task with its model, initialised."""
        return build_task(config, processor)

    def counts_all_targets(self, config: TextRun) -> bool:
        """Whether the loss is Etude's own, and of every token."""
        return is_own_loss(config) and config.masks is None

    def check_flags(self, given: Mapping[str, object]) -> None:
        """Refuse flags that contradict each other."""
        check_together(given)

    def predictor(self, task: Task) -> Predictor:
        """Completes prompts."""
        match task:
            case LanguageModelTask():
                return Completions(task)
        return BestLines(task)

    def export(self, task: Task, kept: Kept, folder: Path) -> str:
        """Write a decoder as a GPT-2 or a Llama of the transformers library, another model in Etude's own form."""
        match task:
            case LanguageModelTask(model=Decoder() as decoder, tokenizer=tokenizer):
                return _write_decoder(decoder, tokenizer, folder)
        return write_own_form(task, kept, folder)


def _write_decoder(decoder: Decoder, tokenizer: Tokenizer | None, folder: Path) -> str:
    from etude.tasks.language_model.export import exported_decoder

    if tokenizer is None:
        raise ConfigError("A language model is exported with its tokenizer, but the task has none.")
    with quiet():
        return write_model(*exported_decoder(decoder, tokenizer), folder)


LANGUAGE_MODEL = LanguageModelType()
