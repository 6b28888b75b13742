"""A run that is there: its config, its metrics, its weights, and what they predict."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from etude.app.build import build_callbacks
from etude.app.phases import config_of
from etude.app.runs.aligned import ALIGNMENTS, asked_of
from etude.app.runs.asked import with_options
from etude.app.runs.computed import Computed
from etude.app.runs.folder import CONFIG
from etude.app.runs.judging import Judging
from etude.app.runs.pipelines import run_in
from etude.app.runs.place import Place
from etude.app.runs.saving import AnyData, build_outputs
from etude.app.runs.stored import refuse_code, stored_config
from etude.app.runs.tested import TestedLines, record_test, write_tables
from etude.app.runs.told import text_of, told
from etude.base.config.command import Overrides
from etude.base.config.imports import code_of
from etude.base.config.reading import read
from etude.base.errors import ConfigError, StorageError
from etude.base.paths import user_path
from etude.base.progress import Progress
from etude.base.says import surely, unheard
from etude.callbacks.outputs import OUTPUTS
from etude.tasks.aligners import Stored
from etude.tasks.attention import Attention
from etude.tasks.config import LoadedConfig, load_config
from etude.tasks.kept import stored_processor
from etude.tasks.own import task_type
from etude.tasks.task_type import ONNX, TOKENIZERS, Kept, Processor, TaskType
from etude.train.components import components
from etude.train.device import choose_device
from etude.train.fit import load_weights
from etude.train.memory.checkpoint import read_weights
from etude.train.memory.checkpoint.content import MODEL
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.shards import files_of
from etude.train.memory.checkpoint.store import BEST, LAST, Store
from etude.train.memory.portable import structure_of
from etude.train.same import check_pass
from etude.train.step.precision import AUTO, Precision
from etude.train.task import Task
from etude.train.watch.callback import RunView, read_only
from etude.train.watch.events import Events, ending_by
from etude.train.watch.record import METRICS, Row, read_rows
from etude.train.world import ALONE, World, passing

Say = Callable[[str], None]
Weights = str | int | Path
"""Names a checkpoint: `best`, `last`, a step's number, or a path."""


class Run:
    """A run folder; of a pipeline's, the last stage that has trained.

    >>> Run("nowhere")
    Traceback (most recent call last):
    ...
    etude.base.errors.StorageError: nowhere is not a run folder: it has no config.toml.
    """

    def __init__(
        self, folder: str | Path, *, overrides: Overrides = (), allow_code: bool = True, say: Say = lambda _: None
    ) -> None:
        self._say = surely(say)
        self.folder = run_in(user_path(folder), self._say)
        self._overrides = overrides
        self._allow_code = allow_code
        self._told_of_last = False
        self._place = Place(self.folder)
        composed = stored_config(self.folder, overrides)
        self._from_python = "task" not in composed
        if self._from_python:
            return
        if not allow_code:
            refuse_code(self.folder, composed)
        _ = self.loaded

    @cached_property
    def loaded(self) -> LoadedConfig:
        """The composed config, checked. Raises ConfigError for a run that a Python trainer made, which has no task."""
        if self._from_python:
            raise ConfigError(
                f"The run in {self.folder} was trained from Python: load its task with the task's own class, as in "
                f'MyTask.load("{self.folder}/checkpoints/best").'
            )
        with self._code():
            return load_config(self.folder / CONFIG, self._overrides)

    def _code(self) -> AbstractContextManager[None]:
        """Lets code that the config names run inside the block only where that is allowed."""
        return code_of(self.folder, allowed=self._allow_code)

    @property
    def config(self) -> Mapping[str, Any]:
        """The composed config, as plain data."""
        return read(self.folder / CONFIG).data if self._from_python else self.loaded.data

    def metrics(self) -> list[Row]:
        """The rows of `metrics.jsonl`."""
        return read_rows(self.folder / METRICS)

    def checkpoint(self, weights: Weights = BEST) -> Path:
        """The checkpoint folder that `weights` names: `best`, `last`, a step's number, or a path.

        Where no validation gave a number, the last takes the best's place, and that is said. Raises StorageError
        where there is none.
        """
        store, weights = Store(self.folder / "checkpoints"), str(weights)
        found = self._named(store, weights)
        if found is None or not found.is_dir():
            raise StorageError(f"{self.folder} has no checkpoint {weights!r}; {_there(store)}.")
        return found

    def _named(self, store: Store, weights: str) -> Path | None:
        """Where the checkpoint that is named lies, if it is there; None of a name that stands for none."""
        if weights in {BEST, LAST}:
            return store.link(weights) or self._instead(store)
        return store.path(int(weights)) if weights.isdecimal() else user_path(weights)

    def _instead(self, store: Store) -> Path | None:
        """What takes the place of the best checkpoint where there is none: the last."""
        last = store.link(LAST)
        if last is not None and not self._told_of_last:
            self._told_of_last = True
            self._say(
                f"{self.folder} has no best checkpoint, since no validation gave a finite "
                f"{self.loaded.config.train.monitor}: its last is used, {last.name}."
            )
        return last

    @cached_property
    def kind(self) -> TaskType[Any, Any]:
        """The type of the run's task."""
        with self._code():
            return task_type(self.loaded.config)

    def load(self, weights: Weights = BEST, *, device: str = "auto") -> Task:
        """The task with the weights of a checkpoint (averaged ones, where an average was kept), ready to evaluate."""
        return self._task(self._processor(), weights, device)

    def trained(self, weights: Weights = BEST, *, device: str = "auto") -> Task:
        """The same in the modes of its training."""
        return self._task(self._processor(), weights, device, train=True)

    def predictor(self, weights: Weights = BEST, *, device: str = "auto") -> tuple[Task, Computed]:
        """The task with the weights of a checkpoint, and what answers from them."""
        task = self.load(weights, device=device)
        with self._code():
            return task, Computed(self.kind.predictor(task), self.precision(device))

    def sharing(self, world: World, weights: Weights = BEST, *, device: str = "auto") -> tuple[Task, Computed]:
        """The same for one of several ranks, which share what all of them are asked."""
        task, predictor = self.predictor(weights, device=device)
        if world.size > 1:
            check_pass(world, task, {"checkpoint": self.checkpoint(weights).name})
            predictor.among(world)
        return task, predictor

    def precision(self, device: str = "auto") -> Precision:
        """What a validation, a test or a prediction on a device computes in.

        It is what the overrides ask for by `train.precision`; else float32 on a CPU, and what the run was trained in on
        an accelerator.
        """
        trained = self.loaded.config.train.precision
        asked = self.loaded.origin("train.precision").flag is not None
        return Precision(trained, choose_device(device)).for_evaluation(trained if asked else AUTO)

    def predict(
        self, texts: Iterable[str], *, weights: Weights = BEST, device: str = "auto", **options: object
    ) -> list[str]:
        """The best prediction of each text, in order: its translation, or what a language model goes on with.

        `options` are how to search or sample, under the names of the shell's flags: `beam_size=8`, `temperature=0.7`,
        `max_tokens=50`; they hold for this call. Raises ConfigError for one that the task does not take.

        A text without one, such as one too long for the model, is warned of and has an empty one; asked alone, as a
        string, it raises DataError. Of several ranks all are given the same texts, share them, and have all answers.
        """
        if options:
            return self._asked(options).predict(texts, weights=weights, device=device)
        with passing(self.loaded.config.distributed) as world:
            task, predictor = self.sharing(world, weights, device=device)
            alone = _is_alone(texts)
            return [text_of(one) for one in self._told(task, predictor.best(_several(texts)), alone=alone)]

    def _asked(self, options: Mapping[str, object]) -> "Run":
        """The same run, asked in another way."""
        overrides = with_options(self._overrides, self.kind.flags, options)
        return Run(self.folder, overrides=overrides, allow_code=self._allow_code, say=self._say)

    def translate(
        self, texts: Iterable[str], *, weights: Weights = BEST, device: str = "auto", **options: Any
    ) -> Iterator[list[Any]]:
        """For each text its translations with scores, best first, as the texts come; a string is one text.

        A text without any is warned of and has an empty one, whose score is minus infinity; asked alone, as a string,
        it raises DataError.
        """
        task, predictor = self.predictor(weights, device=device)
        return self._told(task, predictor.candidates(_several(texts), **options), alone=_is_alone(texts))

    def attention(self, text: str, *, weights: Weights = BEST, device: str = "auto", **options: object) -> Attention:
        """What the best translation of a text looks at in it: tokens, and weights [layers, heads, target, source].

        `options` are those of `predict`. Raises ConfigError where the task or the model has no attention to a source,
        DataError for a blank text.
        """
        if options:
            return self._asked(options).attention(text, weights=weights, device=device)
        _, predictor = self.predictor(weights, device=device)
        return predictor.attention(text)

    def align(
        self,
        split: str = "train",
        *,
        name: str = "",
        folder: Path | None = None,
        weights: Weights = BEST,
        device: str = "auto",
        **options: Any,
    ) -> Stored:
        """Align the labels of a split with its samples, and store that in the run's `alignments/NAME`, or in `folder`.

        What a call before it has stored of the same is kept, so that one that was interrupted goes on.

        `options` are those of `etude align`: `topology`, `prior_scale`, `priors`, `better_of`, `batch_size` and
        `shard_size`. What is returned tells the folder, how many are aligned, and why others are not. Raises
        ConfigError where the run's task has nothing to align, DataError where the data cannot be used.
        """
        asked, config = asked_of(options), self.loaded.config.with_cache(self._place.cache)
        processor = self._processor()
        with self._code(), self.precision(device).forward():
            aligner = self.kind.aligner(self._task(processor, weights, device), config, processor)
            aligner.check(asked)
            return aligner.align(split, folder or self.folder / ALIGNMENTS / (name or split), asked, self._say)

    def export(self, folder: Path, place: Path, *, weights: Weights = BEST, form: str = "auto") -> str:
        """Write the model into the empty `folder`, which will be `place`, as others can load it; say what it is.

        `form` is "auto" or "onnx".
        """
        found = self.checkpoint(weights)
        processor = self._processor()
        task = self._task(processor, weights, "cpu")
        kept = Kept(self.loaded.config, self.loaded.data, processor, files_of(MODEL, found)[0], place)
        with self._code():
            return self.kind.onnx(task, kept, folder) if form == ONNX else self.kind.export(task, kept, folder)

    def _told(self, task: Task, predictions: Iterator[Any], *, alone: bool) -> Iterator[Any]:
        """The predictions, with an event before the first and after the last."""
        events = self._events(task)
        with ending_by(events):
            events.predict_start()
            yield from told(predictions, alone=alone)
            events.predict_end()

    def validate(self, *, weights: Weights = BEST, device: str = "auto") -> dict[str, float]:
        """The metrics of the validation split."""
        return self._shared("val", weights, device)

    def test(self, *, weights: Weights = BEST, device: str = "auto") -> dict[str, float]:
        """The metrics of the test split; appended to `metrics.jsonl`, and the predictions written to `outputs/`."""
        return self._shared("test", weights, device)

    def measure(self, split: str, place: Path, *, weights: Weights = BEST, device: str = "auto") -> dict[str, float]:
        """The metrics of a split; its predictions are written into the folder `place`, and nothing into the run's."""
        with self._code():
            return self._evaluate(split, weights, device, place)

    def _shared(self, split: str, weights: Weights, device: str) -> dict[str, float]:
        """The metrics of a split; of several ranks that were started all evaluate, and the first writes."""
        with passing(self.loaded.config.distributed) as world, self._code():
            return self._evaluate(split, weights, device, world=world)

    def _evaluate(
        self, split: str, weights: Weights, device: str, place: Path | None = None, world: World = ALONE
    ) -> dict[str, float]:
        checkpoint = self.checkpoint(weights)
        with world.after_the_first():
            data = self.data(split)
        task = self._task(data.processor, str(checkpoint), device)
        check_pass(world, task, {"split": split, "checkpoint": checkpoint.name, **data.fingerprints()})
        data.attend(task)
        lines = TestedLines(split, self.kind.predictor(task), partial(data.beside, split))
        say = self._say if world.is_first else unheard
        judging = Judging(self.loaded.config, self.precision(device), device, world, say)
        writes = place is not None or self._place.is_writable
        events = self._events(task, data, checkpoint, (place or self.folder) if writes and world.is_first else None)
        metrics = judging.measure(task, data, split, events, lines)
        if split == "val" or not world.is_first:
            return metrics
        if not writes:
            self._say(f"{self.folder} cannot be written: the test leaves no predictions and no row there.")
            return metrics
        written = place or self.folder / OUTPUTS
        lines.write(written)
        write_tables(task.metrics, written, split)
        if place is None:
            record_test(self.folder, checkpoint, metrics, self._say)
        return metrics

    def data(self, split: str) -> AnyData:
        """The data that a split is evaluated on, under its name; a test without any is on those of validation."""
        config = self.loaded.config.with_cache(self._place.cache)
        held = "train" if config.train.overfit is not None else split
        wanted = "val" if held == "test" and config.data.test is None and config.has_val else held
        with self._code():
            data: AnyData = self.kind.open(config, [wanted], self._say, self._processor())
        if held not in data.splits:
            if held == wanted:
                raise ConfigError(f"data.{held} is not set: name a file or folder, as in --data.{held} texts/.")
            self._say(f"data.{held} is not set: testing on data.{wanted}.")
            held = wanted
        data.only(split, held)
        return data

    def _events(
        self, task: Task, data: AnyData | None = None, checkpoint: Path | None = None, place: Path | None = None
    ) -> Events:
        """Who is told of a pass: the config's callbacks, where code of the run's own may run, and the task's parts.

        Outputs that are to be saved go into the folder `place`; nowhere where that is None.
        """
        config, splits = self.loaded.config, {} if data is None else dict(data.splits)
        step = _step(checkpoint)
        view = RunView(
            progress=Progress(step=step),
            task=task,
            config=read_only(self.loaded.data),
            folder=self.folder,
            data=read_only(splits),
            weights_step=step,
        )
        callbacks = build_callbacks(config) if self._allow_code else []
        saved = build_outputs(config.train, place, self._say, data) if "test" in splits and place is not None else []
        return Events([*callbacks, *saved], components(task, splits), lambda: view, seed=config.run.seed, say=self._say)

    def _processor(self) -> Processor:
        with self._code():
            return stored_processor(self.kind, self.loaded.config, self.folder / TOKENIZERS)

    def _task(self, processor: Processor, weights: Weights, device: str, *, train: bool = False) -> Task:
        checkpoint = self.checkpoint(weights)
        with self._code():
            task = self.kind.task(config_of(self.loaded, structure_of(checkpoint)), processor)
        load_weights(task, read_weights(checkpoint, averaged=True), checkpoint)
        task.to(choose_device(device))
        return task if train else task.eval()


def _there(store: Store) -> str:
    """What checkpoints there are, as a clause."""
    names = ", ".join(filter(store.link, (BEST, LAST)))
    steps = ", ".join(map(str, store.steps()))
    return f"it has {names} and the steps: {steps}" if steps else "it has none yet"


def _several(texts: Iterable[str]) -> Iterable[str]:
    """Texts, or rows; one alone is one of them, not one for each of its characters or columns."""
    return [texts] if _is_alone(texts) else texts  # type: ignore[list-item]  # a text, as was seen


def _is_alone(texts: object) -> bool:
    """Whether one text, or one row, is given in place of several."""
    return isinstance(texts, (str, Mapping))


def _step(checkpoint: Path | None) -> int:
    """The step of a checkpoint; 0 for weights that do not tell."""
    try:
        return 0 if checkpoint is None else checkpoint_step(checkpoint)
    except ValueError:
        return 0
