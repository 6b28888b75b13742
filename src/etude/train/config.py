"""The `[train]` section: every option of the loop."""

import re
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from etude.base.config.fields import DurationField, Switch
from etude.base.config.meaning import means
from etude.base.config.section import Section
from etude.base.durations import Duration
from etude.base.schedules import scheduled
from etude.train.optim.freezing import Frozen

Fraction = Annotated[float, Field(gt=0, le=1)]
Batches = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Split = Literal["train", "val", "test"]
SplitsGiven = Literal["train", "val", "test", "all", False] | list[Split]


def _is_a_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("must be auto, cuda, cuda:N, mps or cpu")
    return name


def _is_no_share(duration: Duration) -> Duration:
    if duration.unit == "percent":
        raise ValueError("must not be a share of the run, whose length it is")
    return duration


def _splits(given: object) -> Any:
    """Read `"all"`, one split's name, and `false` as lists."""
    if given == "all":
        return list(get_args(Split))
    return [given] if isinstance(given, str) else given or []


SplitsField = Annotated[list[Split], BeforeValidator(_splits, SplitsGiven), means("none")]
WholeRun = Annotated[DurationField, AfterValidator(_is_no_share)]


class TrainConfig(Section):
    """How long to train, what a step is, and when to evaluate, save and log."""

    exclusive: ClassVar[tuple[tuple[str, str], ...]] = (("batch_size", "batch_tokens"),)

    max_duration: Annotated[
        WholeRun | Annotated[list[WholeRun], Field(min_length=1)], means("result", resumable=True)
    ] = Duration(16, "epochs")
    """Length of the run; of a list, whichever comes first. Raise it to train a finished run further."""
    min_duration: Annotated[Switch[DurationField], means("result", resumable=True)] = None
    """Early stopping and `stop()` do not end the run before this."""
    eval_every: DurationField = Duration(1, "epochs")
    """Validate this often; a fraction of an epoch counts within each epoch, whose end always validates."""
    save_every: Annotated[DurationField, means("none")] = Duration(1, "epochs")
    """Save a checkpoint this often, and at the end."""
    keep_last: Annotated[Count, means("none")] = 2
    """Newest checkpoints to keep."""
    keep_best: Annotated[Count, means("none")] = 1
    """Best checkpoints to keep."""
    log_every: Annotated[DurationField, means("none")] = Duration(50, "steps")
    """Log loss, scheduled values, gradient norm and throughput this often, and at the end of an epoch."""
    sanity_batches: Annotated[int, Field(ge=0), means("none")] = 2
    """Validation batches of the sanity check before the first step; their metrics are discarded."""

    batch_size: Annotated[Switch[scheduled(ge=1, whole=True)], means(shared="epoch")] = 64  # type: ignore[valid-type]
    """Samples per batch, all ranks together."""
    batch_tokens: Annotated[Switch[scheduled(ge=1, whole=True)], means(shared="epoch")] = None  # type: ignore[valid-type]
    """Instead of batch_size: tokens per padded batch at most, padding included, in batches of similar lengths."""
    eval_batch_size: Annotated[Switch[Count], means("validation", resumable=True)] = None
    """Samples per batch in validate, test and predict; default: as in training."""
    accumulate: scheduled(ge=1, whole=True) = 1  # type: ignore[valid-type]
    """Batches per step; the gradient equals that of one batch made of all of them."""
    clip_grad: Switch[Positive] = None
    """Clip the global norm of the gradient to this."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward pass; weights and losses stay float32. auto: bfloat16 if the device supports it."""
    device: Annotated[str, AfterValidator(_is_a_device), means("result", resumable=True)] = "auto"
    """cuda, mps or cpu (auto: the first that is available)."""
    parameter_noise: scheduled(ge=0) = 0.0  # type: ignore[valid-type]
    """Standard deviation of the noise on all parameters in the forward and backward pass of a step (Graves 2011)."""
    ema_decay: Annotated[Switch[Annotated[float, Field(gt=0, lt=1)]], means("validation", governs=("average",))] = None
    """Keep an exponential moving average of the weights, and validate, select and export it."""
    compile: bool = False
    """Compile the model with torch.compile, once for all lengths of sequences; the first steps wait for it."""
    freeze: Annotated[list[str] | dict[str, Frozen], means(governs=("optimizer",))] = Field(default_factory=list)
    """Parameters, by name pattern, that are not trained; as a table, each pattern with true or a schedule."""
    tbptt_steps: Annotated[Switch[Count], means(shared="epoch")] = None
    """Split every batch into pieces of this many time steps: truncated back-propagation through time."""
    carry_hiddens: bool = False
    """Carry hidden states from one batch to the next of its epoch: a stateful model over a contiguous stream."""

    limit_train: Annotated[Fraction | Batches, means(shared="epoch")] = 1.0
    """A fraction of each epoch (a float), or a number of batches (an integer)."""
    limit_val: Annotated[Fraction | Batches, means("validation", governs=("stopping",))] = 1.0
    """The same for validation."""
    limit_test: Annotated[Fraction | Batches, means("none")] = 1.0
    """The same for testing."""
    overfit: Annotated[Switch[Fraction | Batches], means(shared="epoch", governs=("stopping",))] = None
    """Train, validate and test on this one fixed set, unshuffled."""

    save_outputs: SplitsField = Field(default_factory=list)
    """Splits (train, val, test, or "all") whose targets, predictions, scores and losses are written to `outputs/`."""
    save_outputs_every: Annotated[Literal["best", "validation"], means("none")] = "best"
    """Keep the outputs of the best weights, or for val a file of every validation."""

    patience: Annotated[Switch[Count | DurationField], means("result", resumable=True)] = None
    """Stop after this many validations in a row (or this duration) without improvement."""
    monitor: Annotated[str, means("validation", governs=("stopping",))] = "val/loss"
    """The logged metric that decides the best weights and patience."""
    mode: Annotated[Switch[Literal["min", "max"]], means("validation", governs=("stopping",))] = None
    """Whether lower or higher is better; known for the usual metrics."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False), means("result", resumable=True)] = 0.0
    """Patience counts a validation as an improvement only if it beats the best by more than this."""
    max_skipped_steps: Annotated[Count, means("result", resumable=True)] = 5
    """End the run (exit code 4) after this many steps in a row whose loss or gradient was not finite."""
    max_failed_saves: Annotated[Count, means("none")] = 3
    """End the run (exit code 5) after this many saves in a row that failed."""
