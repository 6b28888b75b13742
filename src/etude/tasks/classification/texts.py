"""Texts as inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from etude.base.says import Say
from etude.tasks.classification.processor import LabelProcessor
from etude.tasks.classification.sample_type import SampleType
from etude.tasks.classification.texts_config import ClassificationRun
from etude.tasks.classification.texts_data import LabelledTexts, prepare
from etude.tasks.parts import is_own_loss


@final
class Texts(SampleType[ClassificationRun, LabelProcessor]):
    """Texts in, labels or numbers out."""

    config = ClassificationRun

    def processor(self, config: ClassificationRun, folder: Path) -> LabelProcessor:
        """The tokenizer and the labels that a run has kept."""
        del config
        return LabelProcessor.stored(folder)

    def open(
        self, config: ClassificationRun, splits: Sequence[str], say: Say, processor: LabelProcessor | None = None
    ) -> LabelledTexts:
        """Open and tokenise splits."""
        return prepare(config, splits, say, processor)

    def counts_all_targets(self, config: ClassificationRun) -> bool:
        """Whether the loss is Etude's own."""
        return is_own_loss(config)


TEXTS = Texts()
