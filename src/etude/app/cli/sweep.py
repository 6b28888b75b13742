"""`etude sweep`: many runs of one config with other values of some keys."""

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from etude.app.cli.naming import command, shell_word
from etude.app.cli.streams import printable, put, say
from etude.app.interrupted import told as interrupted
from etude.app.sweep.begin import STATE, begin, opener
from etude.app.sweep.methods import pruning_of, search_of
from etude.app.sweep.plan import Plan, read_plan
from etude.app.sweep.state.state import Stand, State, Trial, as_it_stands, counted
from etude.app.sweep.told import as_row, failures, ranked, summary, table
from etude.app.sweep.worker import Jobs, Worker, at_step, best_of
from etude.base.errors import ConfigError, StorageError
from etude.data.store.crew import cores
from etude.train.interrupt import Interrupted

RETRIED = {"failed": (Stand.FAILED,), "pruned": (Stand.PRUNED,), "all": (Stand.FAILED, Stand.PRUNED)}


def run(arguments: Namespace, overrides: list[str]) -> int:
    """Run what is left of a sweep, and show what came of all of it; the exit code is that of the first failure."""
    plan = read_plan(arguments.config, overrides, runs=not arguments.status)
    if arguments.status:
        return _status(plan, as_json=arguments.json)
    jobs = _jobs(arguments.jobs, arguments.threads)
    search, pruning = search_of(plan), pruning_of(plan)
    open_state = opener(plan)
    begin(plan, open_state, say)
    state = open_state()
    if arguments.retry is not None:
        say(f"{state.retry(RETRIED[arguments.retry])} runs are tried again.")
    say(f"Sweep: {plan.folder}, {summary(counted(_standing(state)))}; {jobs}.")
    try:
        Worker(plan, open_state, search, pruning, jobs=jobs, say=say).run()
    except Interrupted as ending:
        say(interrupted(ending, plan.folder))
        raise
    trials = state.trials()
    state.close()
    _show(plan, trials, as_json=arguments.json)
    return _tell_the_end(plan, trials)


def _jobs(count: int, threads: int | None) -> Jobs:
    """How many runs at once. Several share the machine's cores, unless the user says otherwise."""
    for name, value in (("--jobs", count), ("--threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, but is {value}.")
    if threads is None and count > 1:
        given = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(given) if given.isdecimal() else max(1, cores() // count)
    return Jobs(count, threads, _devices() if count > 1 else ())


def _devices() -> list[str]:
    """The accelerators of this process, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _status(plan: Plan, *, as_json: bool) -> int:
    """Show how a sweep stands, and change nothing."""
    if plan.config.state is None and not (plan.folder / STATE).exists():
        raise StorageError(f"{plan.folder} holds no sweep yet; {command()} sweep without --status begins it.")
    state = opener(plan)()
    trials = _standing(state)
    state.close()
    _show(plan, trials, as_json=as_json)
    say(f"Sweep: {plan.folder}, {summary(counted(trials))}.")
    for line in failures(trials):
        say(line)
    return 0


def _standing(state: State) -> list[Trial]:
    return list(map(as_it_stands, state.trials()))


def _show(plan: Plan, trials: Sequence[Trial], *, as_json: bool) -> None:
    if as_json:
        for trial in ranked(trials, plan.goal):
            put(json.dumps(as_row(trial, plan), ensure_ascii=False))
    else:
        put(printable(table(plan, trials, shutil.get_terminal_size().columns)))


def _tell_the_end(plan: Plan, trials: Sequence[Trial]) -> int:
    """Say what failed and what was best; the exit code."""
    for line in failures(trials):
        say(line)
    counts = counted(trials)
    if counts[Stand.FAILED]:
        say("To try failed runs again, add --retry failed to the same command.")
    best = best_of(trials, plan.goal)
    if best is not None:
        say(f"Best: {best.name} ({plan.metric} {best.value:.6g}{at_step(best.step)}).")
        say(f"Next:\n  {command()} test {shell_word(_tested(plan, best))}")
    return next((trial.code or 1 for trial in trials if trial.state is Stand.FAILED), 0)


def _tested(plan: Plan, best: Trial) -> Path:
    """The folder of the run of a trial that can be tested."""
    folder = plan.folder / best.name
    return plan.judge.run(folder) if plan.judge.trains else folder
