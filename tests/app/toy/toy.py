"""A task in a folder of its own: the last number of each row, from the others."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from numbers_file import Rows, read
from pydantic import Field
from torch import nn

import etude
from etude.base.config.fields import PathField, Switch
from etude.base.config.section import Section
from etude.base.errors import ConfigError, RefusedError
from etude.base.files import whole_folder, write_json
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.table_feed import TableFeed
from etude.model.initialisers import initialise
from etude.tasks import batches
from etude.tasks.config import Config, DataSection, TaskSection
from etude.tasks.task_type import Data, Predictor, Processor, TaskType
from etude.train.task import StepOutput


class ToyTaskConfig(TaskSection):
    """`[task]`."""

    decimals: int = Field(3, ge=0)
    """Of an answer."""


class ToyData(DataSection):
    """`[data]`."""

    train: Switch[PathField] = None
    val: Switch[PathField] = None
    test: Switch[PathField] = None
    separator: Annotated[str, Field(min_length=1)] = ";"


class ToyModel(Section):
    """`[model]`."""

    activation: Literal["tanh", "relu"] = "tanh"
    width: int = Field(8, ge=1)


class ToyRun(Config):
    """A whole config."""

    task: ToyTaskConfig
    data: ToyData = ToyData()
    model: ToyModel = ToyModel()


@dataclass(frozen=True)
class Scale(Processor):
    """How many numbers stand before the last, and what that is measured in."""

    inputs: int
    mean: float
    spread: float

    def save(self, folder):
        if not folder.is_dir():
            with whole_folder(folder, "write") as part:
                write_json(part / "scale.json", self.__dict__)


@dataclass
class Numbers(Data[Scale]):
    """The splits."""

    config: ToyRun
    processor: Scale
    splits: dict[str, Rows] = field(default_factory=dict)

    def size(self, split):
        return f"{len(self.splits[split])} rows"

    def fingerprints(self):
        return {name: str(hash(rows.values.tobytes())) for name, rows in self.splits.items()}

    def only(self, split, held):
        self.splits = {split: self.splits[held]}

    def feed(self, split, *, training=False, say):
        trains = training or self.config.train.overfit is not None
        made = batches.training(self.config, 0, say) if trains else batches.evaluating(self.config, split, say)
        return TableFeed(self.splits[split], made)

    def scheduled_values(self, feed):
        sizes = batches.size_schedule(self.config.train)
        return [ScheduledValue(key, spec, feed.resize, when="epoch", whole=True) for key, spec in sizes.items()]

    def beside(self, split, batch):
        rows = batch["row"].tolist()
        return {"sample": rows, "target": [self.splits[split].values[row][-1] for row in rows]}


class LastNumber(etude.Task):
    """The task itself."""

    def __init__(self, model, scale, decimals):
        super().__init__()
        self.model, self.scale, self.decimals = model, scale, decimals

    def training_step(self, batch):
        apart = self.model(batch["inputs"])[:, 0] - batch["targets"]
        return etude.Loss(apart.square().sum(), len(apart))

    def test_step(self, batch):
        return StepOutput(self.training_step(batch), outputs=self.numbers(batch["inputs"]))

    def numbers(self, inputs):
        with torch.no_grad():
            return [value * self.scale.spread + self.scale.mean for value in self.model(inputs)[:, 0].tolist()]


class Answers(Predictor):
    """A number for each line of numbers."""

    def __init__(self, task, separator=";"):
        self.task, self.separator = task, separator

    def answers(self, questions, asked) -> Iterator[str]:
        for window in questions.lines():
            for line, answer in zip(window, self.best(window), strict=True):
                yield json.dumps({"row": line, "prediction": float(answer)}) + "\n" if asked.json else f"{answer}\n"

    def best(self, texts):
        for text in texts:
            inputs = torch.tensor([[float(part) for part in text.split(self.separator)]])
            yield self.shown(self.task.numbers(inputs)[0])

    def candidates(self, texts, **options):
        raise ConfigError("A row has one last number.")

    def tested(self, outputs):
        return [self.shown(value) for value in outputs]

    def shown(self, value):
        return f"{value:.{self.task.decimals}f}"


class Toy(TaskType[ToyRun, Scale]):
    """What Etude asks of it."""

    config = ToyRun

    def processor(self, config, folder):
        if not (folder / "scale.json").is_file():
            raise RefusedError(f"{folder} does not hold the scale of a run.")
        return Scale(**json.loads((folder / "scale.json").read_text()))

    def open(self, config, splits, say, processor=None):
        given = {"train": config.data.train, "val": config.data.val, "test": config.data.test}
        missing = next((name for name in splits if given[name] is None), None)
        if missing is not None:
            raise ConfigError(f"data.{missing} is not set: name a file of numbers.")
        tables = {name: read(given[name], config.data.separator) for name in splits}
        if processor is None:
            last = tables["train"][:, -1]
            processor = Scale(tables["train"].shape[1] - 1, float(last.mean()), float(last.std()))
        rows = {name: Rows(table, processor.mean, processor.spread) for name, table in tables.items()}
        return Numbers(config, processor, rows)

    def task(self, config, processor):
        activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[config.model.activation]
        width = config.model.width
        model = nn.Sequential(nn.Linear(processor.inputs, width), activation(), nn.Linear(width, 1))
        initialise(model, config.run.seed, config.init.weights)
        return LastNumber(model, processor, config.task.decimals)

    def counts_all_targets(self, config):
        return True

    def predictor(self, task):
        return Answers(task)

    def export(self, task, kept, folder):
        weights = {name: value.tolist() for name, value in task.state_dict().items()}
        write_json(folder / "numbers.json", {"scale": kept.processor.__dict__, "weights": weights})
        return "a table of numbers, in JSON."


TOY = Toy()
