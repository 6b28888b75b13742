"""A plan for many ranks as text: facts, a table of memory, and a table of time."""

from collections.abc import Callable, Iterator, Sequence

from etude.app.layout import columns
from etude.app.plan.ranks.ranks import Rank, Ranks

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
KILO = 1024
SIGNIFICANT = 100
NOTHING = "-"
Told = Callable[[float | None], str]
"""How a number is told, or that there is none."""


def text(plan: Ranks) -> Iterator[str]:
    """The lines of the plan."""
    yield from facts(plan)
    yield ""
    yield from memory(plan)
    yield ""
    yield from time(plan)


def facts(plan: Ranks) -> Iterator[str]:
    """What is the same whatever the number of ranks."""
    trained = "" if plan.trained == plan.parameters else f", {plan.trained:,} of them trained"
    yield f"{plan.run}: {plan.parameters:,} parameters{trained}; computes in {plan.precision}"
    yield f"batch     {_batches(plan)}"
    yield f"steps     {_steps(plan)}, whatever the number of ranks"
    yield f"strategy  {plan.chosen}, as the config has it; ddp and fsdp are shown"
    if plan.speed is not None:
        yield f"speed     {plan.speed:,.0f} tokens a second on each rank"
    if plan.bandwidth is not None:
        yield f"sending   {plan.bandwidth:,.0f} bytes a second from each rank"
    yield from (f"note      {note}" for note in plan.notes)


def _batches(plan: Ranks) -> str:
    least, most = plan.samples
    samples = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    tokens = "" if plan.tokens is None else f"; about {plan.tokens:,.0f} tokens in a step"
    several = "" if plan.accumulate == 1 else f", {plan.accumulate} batches a step"
    return f"{samples} samples, shared by all ranks{several}{tokens}"


def _steps(plan: Ranks) -> str:
    each = "unknown" if plan.steps_per_epoch is None else f"{plan.steps_per_epoch:,.0f}"
    return f"{each} an epoch" + ("" if plan.steps is None else f", {plan.steps:,.0f} in all")


def memory(plan: Ranks) -> Iterator[str]:
    """What a rank holds at its peak."""
    heads = ("ranks", "", "samples", "weights", "gradients", "optimizer", "average", "activations", "gathered", "peak")
    rows = [_memory_row(rank) for rank in plan.ranks]
    yield "memory of a rank at the peak of a step"
    yield from _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table without the columns in which nothing stands."""
    kept = [place for place in range(len(heads)) if any(row[place] != NOTHING for row in rows)]
    chosen = [[row[place] for place in kept] for row in (heads, *rows)]
    return columns(chosen, right=[place for place, head in enumerate(chosen[0]) if head])


def _memory_row(rank: Rank) -> Sequence[str]:
    parts = (size_or_none(size) for size in rank.memory)
    return f"{rank.world:,}", rank.strategy, f"{rank.samples:,}", *parts, size(rank.memory.total)


def time(plan: Ranks) -> Iterator[str]:
    """What a rank sends, and how long a step takes."""
    heads = ("ranks", "", "sent a step", "computing", "sending", "step", "tokens a second", "an epoch")
    rows = [_time_row(plan, rank) for rank in plan.ranks]
    yield "communication and time of a step"
    yield from _table(heads, rows)
    if plan.speed is None:
        yield "Computing is unknown: give --speed, or train the run for a while."
    if plan.bandwidth is None:
        yield "Sending is unknown: give --bandwidth."


def _time_row(plan: Ranks, rank: Rank) -> Sequence[str]:
    times = rank.time
    return (
        f"{rank.world:,}",
        rank.strategy,
        size_or_none(round(rank.sent)),
        seconds(times.computing),
        seconds(times.sending),
        _range(times.least, times.most, seconds),
        _range(_rate(plan.tokens, times.most), _rate(plan.tokens, times.least), _count),
        _range(_times(plan.steps_per_epoch, times.least), _times(plan.steps_per_epoch, times.most), seconds),
    )


def _rate(tokens: float | None, took: float | None) -> float | None:
    return None if tokens is None or not took else tokens / took


def _times(count: float | None, each: float | None) -> float | None:
    return None if count is None or each is None else count * each


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{float(f'{value:.3g}'):,.0f}"


def _range(low: float | None, high: float | None, told: Told) -> str:
    """Both ends, or one where they are told alike."""
    one, other = told(low), told(high)
    return one if one == other else f"{one} to {other}"


def size(count: float) -> str:
    """Bytes in a unit that leaves three digits.

    >>> size(512), size(1536), size(160 * 2**20), size(3.26 * 2**30)
    ('512 B', '1.50 KiB', '160 MiB', '3.26 GiB')
    """
    power = 0
    while count >= KILO and power < len(UNITS) - 1:
        count, power = count / KILO, power + 1
    if power == 0:
        return f"{count:.0f} B"
    return f"{count:.{_digits(count)}f} {UNITS[power]}"


def _digits(count: float) -> int:
    """How many digits behind the point three are."""
    if count >= SIGNIFICANT:
        return 0
    return 1 if count >= SIGNIFICANT / 10 else 2


def size_or_none(count: float) -> str:
    """The same, and a dash for nothing."""
    return size(count) if count else NOTHING


def seconds(value: float | None) -> str:
    """A time in a unit that leaves three digits.

    >>> seconds(0.0012), seconds(3.5), seconds(400), seconds(10000), seconds(None)
    ('1.20 ms', '3.50 s', '6.67 min', '2.78 h', '-')
    """
    if value is None:
        return NOTHING
    for unit, length, least in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120), ("s", 1, 1)):
        if value >= least:
            return f"{value / length:.{_digits(value / length)}f} {unit}"
    return f"{value * 1000:.{_digits(value * 1000)}f} ms"
