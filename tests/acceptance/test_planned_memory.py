"""The memory that a plan foresees is within 10 % of what is measured, and a sharded model's pieces are FSDP's."""

import importlib.util
import re
import shlex
import sys
import warnings
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from etude.app.cli.main import main
from etude.app.dry_run import dry_run
from etude.app.find.prepared import prepared
from etude.app.plan.ranks.footprint import footprint
from etude.app.plan.ranks.largest import Again
from etude.app.plan.ranks.ranks import Memory, memory_of, sent_in_a_step
from etude.app.plan.ranks.units import units
from etude.tasks.config import load_config

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = (ROOT / "docs" / "guide" / "scale.md").read_text(encoding="utf-8")
RANKS = 4


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("plan_memory", BENCHMARKS / "plan_memory.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture(scope="module")
def place(benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    benchmark.write_data(folder)
    return folder


@pytest.fixture
def ranks():
    """A process group of ranks of which only this one is there: what the others send is left out."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    yield init_device_mesh("cpu", (RANKS,))
    dist.destroy_process_group()


class Sent(TorchDispatchMode):
    """Counts what a rank sends by rings: of each piece that is gathered or summed, all but its own."""

    def __init__(self):
        super().__init__()
        self.bytes = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            whole = max(leaf.nbytes for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
            self.bytes += whole * (RANKS - 1) / RANKS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["decoder of a language model", "translator", "BLSTM"])
def test_the_memory_of_a_step_is_foreseen_within_a_tenth(benchmark, place, name):
    found = benchmark.compare(place, name)

    sys.stdout.write(f"{name}: {found}\n")
    assert found["planned"] == pytest.approx(found["allocated"], rel=0.1)
    assert found["resident"] <= 1.1 * found["planned"]


def test_a_step_of_a_sharded_model_holds_and_sends_what_is_foreseen(benchmark, place, ranks):
    loaded = load_config(benchmark.write_config(place, "decoder of a language model"))
    foreseen = footprint(loaded, [RANKS])
    memory = memory_of(foreseen, RANKS, "fsdp")

    with warnings.catch_warnings(), dry_run(loaded, "measure", lambda _: None) as (job, _):
        warnings.simplefilter("ignore")
        job.horizon = foreseen.horizon
        job.train = Again(foreseen.shares.largest[RANKS])
        learner = prepared(job).learner
        task = learner.task
        for unit in units(task):
            fully_shard(unit, mesh=ranks)
        fully_shard(task, mesh=ranks)
        register_fsdp_forward_method(task, "training_step")
        pieces = sum(p.to_local().untyped_storage().nbytes() for p in task.parameters())
        (delivery,) = islice(learner.feed.epoch(0), 1)

        def backward():
            loss = task.training_step(delivery.batch)
            loss.value.backward()
            task.zero_grad()

        backward()
        with Sent() as sent:
            backward()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof:
            backward()
        held = benchmark.allocated(prof)

    step = Memory(**{**memory._asdict(), "parameters": 0, "optimizer": 0, "average": 0}).total
    sys.stdout.write(f"foreseen {step}, measured {held}, sent {sent.bytes}\n")
    assert pieces + foreseen.buffers == memory.parameters
    assert sent.bytes == pytest.approx(sent_in_a_step(foreseen, RANKS, "fsdp", None), rel=0.01)
    assert step == pytest.approx(held, rel=0.1)


@pytest.mark.parametrize("shown", re.findall(r"```sh\n(etude plan .*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL))
def test_what_the_guide_shows_of_a_plan_is_what_is_printed(shown, tmp_path, monkeypatch, capsys):
    command, printed = shown
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("\\\n", " "))[1:]

    main([str(ROOT / word) if word.startswith("recipes/") else word for word in words])

    assert capsys.readouterr().out == printed


def test_the_guide_shows_a_plan():
    assert "1,024  fsdp" in PAGE
