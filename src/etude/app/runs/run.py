"""A run that is there: its config, its metrics, its weights, and what they predict."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etude.app.build import build_callbacks, build_task
from etude.app.config import Config, load_config
from etude.app.corpus import TOKENIZERS, Corpus, open_corpus, stored_corpus
from etude.app.runs.folder import CONFIG
from etude.app.pairs import Pairs
from etude.app.runs.saving import build_outputs
from etude.base.config.components import Imported
from etude.base.config.loading import Loaded
from etude.base.config.reading import read
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.base.files import make_folder, write_text
from etude.base.progress import Progress
from etude.tasks.translation.task import Translation, TranslationTask
from etude.train.watch.callback import Events, RunView, ending_by, read_only
from etude.train.memory.checkpoint import read_weights
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.store import BEST, LAST, Store
from etude.train.components import components
from etude.train.evaluate import evaluate
from etude.train.fit import load_weights
from etude.train.step.pieces import evaluated
from etude.train.device import choose_device
from etude.train.watch.record import METRICS, Record, Row, read_rows
from etude.train.task import Task

Say = Callable[[str], None]


class Run:
    """A run folder.

    >>> Run("nowhere")
    Traceback (most recent call last):
    ...
    etude.base.errors.StorageError: nowhere is no run folder: it has no config.toml.
    """

    def __init__(
        self, folder: str | Path, *, overrides: Any = (), allow_code: bool = True, say: Say = lambda _: None
    ) -> None:
        self.folder = Path(folder)
        self._say = say
        self._overrides = overrides
        self._allow_code = allow_code
        if not (self.folder / CONFIG).exists():
            raise StorageError(f"{folder} is no run folder: it has no {CONFIG}.")
        self._from_python = "task" not in read(self.folder / CONFIG).data
        if not self._from_python:
            _ = self.loaded
        if not allow_code:
            self._refuse_code()

    @cached_property
    def loaded(self) -> Loaded[Config]:
        """The composed config, checked. Raises ConfigError for a run that a Python trainer made, which has no task."""
        if self._from_python:
            raise ConfigError(
                f"The run in {self.folder} was trained from Python: its task is loaded by the task's own class, as in "
                f'MyTask.load("{self.folder}/checkpoints/best").'
            )
        return load_config(self.folder / CONFIG, self._overrides)

    @property
    def config(self) -> Mapping[str, Any]:
        """The composed config, as plain data."""
        return read(self.folder / CONFIG).data if self._from_python else self.loaded.data

    def metrics(self) -> list[Row]:
        """The rows of `metrics.jsonl`."""
        return read_rows(self.folder / METRICS)

    def checkpoint(self, weights: str = BEST) -> Path:
        """The checkpoint folder that `weights` names: `best`, `last`, a step's number, or a path.

        Raises StorageError where it is not there.
        """
        store = Store(self.folder / "checkpoints")
        found: Path | None
        if weights in {BEST, LAST}:
            found = store.link(weights)
        elif weights.isdigit():
            found = store.path(int(weights))
        else:
            found = Path(weights)
        if found is None or not found.is_dir():
            steps = ", ".join(str(step) for step in store.steps())
            there = f"it has best, last and the steps: {steps}" if steps else "it has none yet"
            raise StorageError(f"{self.folder} has no checkpoint {weights!r}; {there}.")
        return found

    def load(self, weights: str = BEST, *, device: str = "auto") -> Task:
        """The task with the weights of a checkpoint (averaged ones, where an average was kept), ready to evaluate."""
        return self._task(stored_corpus(self.loaded.config, self.folder / TOKENIZERS), weights, device)

    def predict(self, texts: Iterable[str], *, weights: str = BEST, device: str = "auto") -> list[str]:
        """The best prediction of each text, in order: its translation, or what a language model goes on with."""
        lines = [texts] if isinstance(texts, str) else texts
        task: Any = self.load(weights, device=device)
        if not callable(getattr(task, "predict", None)):
            raise ConfigError(f"{type(task).__name__} does not predict from text; use its predict_step.")
        return [found[0].text for found in self._told(task, task.predict(lines))]

    def translate(
        self, texts: Iterable[str], *, weights: str = BEST, device: str = "auto", **options: Any
    ) -> Iterator[list[Translation]]:
        """For each text its translations with scores, best first, as the texts come."""
        task = self.load(weights, device=device)
        if not isinstance(task, TranslationTask):
            raise ConfigError(f"{type(task).__name__} does not predict from text; use its predict_step.")
        return self._told(task, task.predict(texts, **options))

    def _told(self, task: Task, predictions: Iterator[Any]) -> Iterator[Any]:
        """The predictions, with an event before the first and after the last."""
        events = self._events(task)
        with ending_by(events):
            events.predict_start()
            yield from predictions
            events.predict_end()

    def validate(self, *, weights: str = BEST, device: str = "auto") -> dict[str, float]:
        """The metrics of the validation split."""
        return self._evaluate("val", weights, device)

    def test(self, *, weights: str = BEST, device: str = "auto") -> dict[str, float]:
        """The metrics of the test split; appended to `metrics.jsonl`, and the predictions written to `outputs/`."""
        return self._evaluate("test", weights, device)

    def _evaluate(self, split: str, weights: str, device: str) -> dict[str, float]:
        config = self.loaded.config
        checkpoint = self.checkpoint(weights)
        held = "train" if config.train.overfit is not None else split
        wanted = "val" if held == "test" and config.data.test is None and config.has_val else held
        corpus = open_corpus(config, [wanted], self._say, stored=self.folder / TOKENIZERS)
        if held not in corpus.splits:
            if held == wanted:
                raise ConfigError(f"data.{held} is not set: name a file or folder, as in --data.{held} texts/.")
            self._say(f"data.{held} is not set: testing on data.{wanted}.")
            held = wanted
        corpus.splits = {split: corpus.splits[held]}
        task = self._task(corpus, str(checkpoint), device)
        feed = corpus.evaluation_feed(split, self._say)
        texts: dict[int, str] = {}
        step: Callable[[Any], Any] = task.validation_step if split == "val" else task.test_step
        events = self._events(task, corpus, checkpoint)
        loop = config.train
        step, deliveries = evaluated(task, step, feed.epoch(0), steps=loop.tbptt_steps, carry=loop.carry_hiddens)
        step = step if split == "val" else _collecting(step, texts)
        with ending_by(events):
            (events.validation_start if split == "val" else events.test_start)()
            metrics = evaluate(
                task,
                deliveries,
                step,
                prefix=split,
                device=choose_device(device),
                seed=config.run.seed,
                before=events.validation_batch_start if split == "val" else events.test_batch_start,
                after=events.validation_batch_end if split == "val" else events.test_batch_end,
            )
            (events.validation_end if split == "val" else events.test_end)(MappingProxyType(metrics))
        self._write(split, checkpoint, metrics, corpus, texts)
        return metrics

    def _events(self, task: Task, corpus: Corpus | None = None, checkpoint: Path | None = None) -> Events:
        """Who is told of a pass: the config's callbacks, where code of the run's own may run, and the task's parts."""
        config, data = self.loaded.config, {} if corpus is None else dict(corpus.splits)
        step = _step(checkpoint)
        view = RunView(
            progress=Progress(step=step),
            task=task,
            config=read_only(self.loaded.data),
            folder=self.folder,
            data=read_only(data),
            weights_step=step,
        )
        callbacks = build_callbacks(config) if self._allow_code else []
        saved = (
            [] if corpus is None or "test" not in data else build_outputs(config.train, self.folder, self._say, corpus)
        )
        return Events([*callbacks, *saved], components(task, data), lambda: view, seed=config.run.seed)

    def _write(
        self, split: str, checkpoint: Path, metrics: Mapping[str, float], corpus: Corpus, texts: Mapping[int, str]
    ) -> None:
        if texts and isinstance(corpus, Pairs):
            folder = self.folder / "outputs"
            make_folder(folder)
            rows = sorted(texts)
            columns = {
                "txt": [texts[row] for row in rows],
                "source.txt": corpus.splits[split].sources(rows),
                "reference.txt": corpus.splits[split].references(rows),
            }
            for ending, lines in columns.items():
                write_text(folder / f"{split}.{ending}", "".join(f"{_one_line(line)}\n" for line in lines))
        if split == "test":
            record = Record(self.folder, complain=self._say)
            record.open(cut=None)
            last = record.rows[-1] if record.rows else {}
            step = checkpoint_step(checkpoint) if checkpoint.name.startswith("step-") else last.get("step", 0)
            row = next((row for row in record.rows if row["step"] == step), last)
            head = {"step": step, "epoch": row.get("epoch", 0), "tokens": row.get("tokens", 0)}
            record.write(head | dict(metrics) | {"time/checkpoint": checkpoint.name})
            record.close()

    def _task(self, corpus: Corpus, weights: str, device: str) -> Task:
        checkpoint = self.checkpoint(weights)
        task = build_task(self.loaded.config, corpus)
        load_weights(task, read_weights(checkpoint, averaged=True), checkpoint)
        return task.to(choose_device(device)).eval()

    def _refuse_code(self) -> None:
        if self._from_python:
            return
        config = self.loaded.config
        entries = [config.task, config.model, config.loss]
        foreign = [entry.type for entry in entries if isinstance(entry, Imported)]
        if foreign:
            raise RefusedError(
                f"The config of {self.folder} runs code of its own ({foreign[0]}); give --allow-code if you trust it."
            )


def _step(checkpoint: Path | None) -> int:
    """The step of a checkpoint; 0 for weights that do not tell."""
    try:
        return 0 if checkpoint is None else checkpoint_step(checkpoint)
    except ValueError:
        return 0


def _collecting(tested: Callable[[Any], Any], texts: dict[int, str]) -> Callable[[Any], Any]:
    """The test step, its best prediction of every sample kept."""

    def step(batch: Any) -> Any:
        returned = tested(batch)
        outputs: Sequence[Any] = getattr(returned, "outputs", None) or ()
        if outputs and isinstance(outputs[0], list) and outputs[0] and isinstance(outputs[0][0], Translation):
            texts.update(zip(batch.indices.tolist(), (best[0].text for best in outputs), strict=True))
        return returned

    return step


def _one_line(text: str) -> str:
    """The text without line breaks, which would shift the lines of an aligned file."""
    return text.replace("\r", " ").replace("\n", " ")
