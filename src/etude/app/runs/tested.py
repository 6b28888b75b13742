"""What a test writes beside its metrics: a line a sample, of what was predicted and of what the data hold beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from etude.base.files import make_folder, write_text
from etude.base.says import Say
from etude.metrics.text import one_line
from etude.tasks.task_type import Columns, Predictor
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.watch.record import Record

FILES = {"source": "source", "target": "reference"}
"""What the columns beside a sample are called as files."""


@runtime_checkable
class Tabled(Protocol):
    """A metric that keeps more than its numbers tell."""

    def table(self) -> str:
        """All of it, as lines of cells with tabs between them."""


def write_tables(metrics: Mapping[str, object], folder: Path, split: str) -> None:
    """Write a file `SPLIT.METRIC.tsv` for each metric that is a table."""
    for name, metric in metrics.items():
        match metric:
            case Tabled():
                make_folder(folder)
                write_text(folder / f"{split}.{name}.tsv", metric.table())


def record_test(folder: Path, checkpoint: Path, metrics: Mapping[str, float], say: Say) -> None:
    """Append what a test measured to `metrics.jsonl`."""
    record = Record(folder, complain=say)
    record.open(cut=None)
    last = record.rows[-1] if record.rows else {}
    step = checkpoint_step(checkpoint) if checkpoint.name.startswith("step-") else last.get("step", 0)
    row = next((row for row in record.rows if row["step"] == step), last)
    head = {"step": step, "epoch": row.get("epoch", 0), "tokens": row.get("tokens", 0)}
    record.write(head | dict(metrics) | {"time/checkpoint": checkpoint.name})
    record.close()


@final
class TestedLines:
    """The best prediction of every sample, in the order of the files, and the raw texts beside it."""

    __test__ = False

    def __init__(self, split: str, predictor: Predictor, beside: Callable[[object], Columns]) -> None:
        self._split = split
        self._predictor = predictor
        self._beside = beside
        self._rows: list[tuple[int, dict[str, str]]] = []

    def add(self, batch: object, outputs: object) -> None:
        """Keep those of a batch, where it has texts, with what is beside them; `outputs` are those of the test step."""
        texts = None if outputs is None else self._predictor.tested(outputs)
        if texts is None:
            return
        references = self._predictor.references(batch)
        columns = {**({} if references is None else {"target": references}), **self._beside(batch)}
        numbers = columns.get("sample", range(len(self._rows), len(self._rows) + len(texts)))
        given = {name: columns[key] for key, name in FILES.items() if key in columns}
        for at, (number, text) in enumerate(zip(numbers, texts, strict=True)):
            self._rows.append(
                (int(str(number)), {"": text} | {name: str(column[at]) for name, column in given.items()})
            )

    def write(self, folder: Path) -> None:
        """Write a file for the predictions and for each column; nothing where there are none."""
        rows = [row for _, row in sorted(self._rows, key=lambda row: row[0])]
        if not rows:
            return
        make_folder(folder)
        for name in rows[0]:
            ending = f"{name}.txt" if name else "txt"
            write_text(folder / f"{self._split}.{ending}", "".join(f"{one_line(row[name])}\n" for row in rows))
