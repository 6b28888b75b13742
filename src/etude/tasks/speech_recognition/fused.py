"""What a search is told besides the sound: a language model, and words that are expected."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from etude.base.errors import ConfigError
from etude.data.tokens.tokenizers import EOS, UNK, Tokenizer
from etude.search.arpa import read_arpa
from etude.search.fusion import Fusion, LabelModel, Together
from etude.search.hot_words import HotWords
from etude.search.network_fusion import NetworkModel
from etude.search.ngrams import LabelNgram, WordNgram
from etude.tasks.other_runs import other_run
from etude.tasks.speech_recognition.config import SpeechConfig
from etude.train.task import Task

Read = Callable[[Path, Tokenizer], LabelModel[Any]]


def fusion_of(config: SpeechConfig, tokenizer: Tokenizer) -> Fusion | None:
    """What `[task]` fuses, as one; None where it fuses nothing. Raises ConfigError and DataError."""
    models: list[tuple[LabelModel[Any], float]] = []
    if config.language_model is not None:
        models.append((_language_model(config, config.language_model, tokenizer), config.language_model_weight))
    if config.hot_words:
        words = [_labels_of(word, tokenizer) for word in config.hot_words]
        models.append((HotWords(words, config.hot_word_bonus, _space(tokenizer)), 1.0))
    if not models:
        return None
    return Fusion(Together(tuple(models)), bonus=config.token_bonus)


def _labels_of(word: str, tokenizer: Tokenizer) -> Sequence[int]:
    """The labels of a hot word. Raises ConfigError for one that can never be found."""
    labels: Sequence[int] = tokenizer.encode(word.strip())
    if labels and UNK not in labels:
        return labels
    why = "the run's tokenizer does not know all of it" if labels else "it is empty"
    raise ConfigError(f'task.hot_words has "{word}", which no search can find: {why}.')


def _language_model(config: SpeechConfig, path: Path, tokenizer: Tokenizer) -> LabelModel[Any]:
    if path.is_dir():
        return _network(path, tokenizer)
    ngram = read_arpa(path)
    texts = _texts(tokenizer)
    if config.language_model_unit == "token":
        return LabelNgram(ngram, texts)
    return WordNgram(ngram, texts)


def _network(folder: Path, tokenizer: Tokenizer) -> LabelModel[Any]:
    """The model of a run of the task `language_model`, which must have the same tokens."""
    other = other_run(folder, "task.language_model")
    match other.task, other.processor:
        case Task(model=nn.Module() as model), object(tokenizer=spelling) if hasattr(model, "begin"):
            if spelling.fingerprint() != tokenizer.fingerprint():
                raise ConfigError(
                    f"task.language_model names {folder}, whose tokenizer is another than this run's: train it with "
                    'tokenizer.type = "file" and the shared.json of this run.'
                )
            generating: Any = model
            return NetworkModel(generating)
    raise ConfigError(f"task.language_model names {folder}, which is no run of the task language_model.")


def _texts(tokenizer: Tokenizer) -> dict[int, str]:
    """What each label reads as."""
    return {label: tokenizer.decode([label]) for label in range(EOS + 1, tokenizer.size)}


def _space(tokenizer: Tokenizer) -> int | None:
    """The label that stands between words, where there is one of its own."""
    found: Sequence[int] = tokenizer.encode(" ")
    return found[0] if len(found) == 1 and found[0] > EOS else None
