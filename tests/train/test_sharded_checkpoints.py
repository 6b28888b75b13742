"""Checkpoints that the ranks of a sharded run write together: complete or invisible, read by any number of ranks."""

import errno
import json
import os
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from in_ranks import ended, in_ranks
from safetensors.torch import load_file
from small_runs import rows, weights
from test_sharded import Stack, fitted, losses  # which imports what ranks inherit
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import etude
from etude.base.errors import StorageError
from etude.base.files import sha256_of
from etude.train.memory.checkpoint import read, read_weights, verify
from etude.train.memory.checkpoint import writers as writers_module
from etude.train.memory.checkpoint.content import Content
from etude.train.memory.preload import load_weights
from etude.train.watch.record import Record
from etude.train.world import gathering, joined

KINDS = ("model", "ema", "optimizer")
OPTIONS = {"ema_decay": 0.9, "save_every": "2 steps", "eval_every": "5 steps", "keep_last": 10}


class Tied(Stack):
    """The output is a module of its own, whose weight is the embedding's."""

    def __init__(self, **options):
        super().__init__(**options)
        self.output = nn.Linear(8, 7, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("seen", torch.arange(3))


def sharded(rank, folder, steps=6, **options):
    return fitted(folder, "fsdp", steps, Tied(), **{**OPTIONS, **options})


def whole(rank, folder, steps=6, **options):
    return fitted(folder, "ddp", steps, Tied(), **{**OPTIONS, **options})


def done(rank, folder, strategy="fsdp", steps=6):
    """A run in ranks, whose result does not leave them."""
    fitted(folder, strategy, steps, Tied(), **OPTIONS)


@pytest.fixture(scope="module")
def straight(quick_folder):
    """A run in one process."""
    whole(0, quick_folder / "whole")
    return quick_folder / "whole"


@pytest.fixture(scope="module")
def two(quick_folder):
    """A run of two ranks with sharded weights."""
    in_ranks(2, done, quick_folder / "two")
    return quick_folder / "two"


@pytest.fixture
def run(two, tmp_path):
    """A copy of it."""
    shutil.copytree(two, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def newest(run):
    return run / "checkpoints" / "step-00000006"


def by_index(folder, kind):
    """The tensors of a kind as another tool finds them: by the index."""
    index = json.loads((folder / f"{kind}.safetensors.index.json").read_text())
    files = {name: load_file(folder / name) for name in set(index["weight_map"].values())}
    assert sum(len(held) for held in files.values()) == len(index["weight_map"])
    found = {name: files[file][name] for name, file in index["weight_map"].items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    return found


# -- who has what ------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 10**12), max_size=40), count=st.integers(1, 9))
def test_every_tensor_has_one_owner_and_ranks_have_about_as_much(sizes, count):
    named = {("model", f"{number}"): size for number, size in enumerate(sizes)}

    found = gathering.owners(named, count)

    again = gathering.owners(dict(reversed(named.items())), count)
    loads = [sum(named[key] for key, rank in found.items() if rank == one) for one in range(count)]
    assert found == again
    assert found.keys() == named.keys()
    assert max(loads) - min(loads) <= max(sizes, default=0)


SHAPES = {
    "matrix": torch.arange(35.0).view(7, 5),
    "longer": torch.arange(96.0, dtype=torch.float64).view(12, 2, 4),
    "one row": torch.arange(9).view(1, 9),
    "short": torch.tensor([1, 2], dtype=torch.int16),
    "flags": torch.tensor([True, False, True, True, False]),
    "narrow": torch.randn(11, 3, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "empty": torch.empty(0, 4),
    "columns": torch.arange(18.0).view(2, 9),
    "same": torch.arange(6.0).view(3, 2),
    "number": torch.tensor(5.0),
}
PLACEMENTS = {"columns": Shard(1), "same": Replicate(), "number": Replicate()}


def gather(rank, size, bucket):
    gathering.BUCKET_BYTES = bucket
    with joined() as here:
        mesh = init_device_mesh("cpu", (size,))
        tensors = {("", "plain"): torch.ones(3)}
        for name, value in SHAPES.items():
            how = PLACEMENTS.get(name, Shard(0))
            tensors["", name] = distribute_tensor(value, mesh, [how], src_data_rank=None)
        owners, own = gathering.handed_out(here.world, tensors, size)
        return owners, {name: (value.dtype, value.tolist()) for (_, name), value in own.items()}


@pytest.mark.parametrize(("size", "bucket"), [(2, 16), (3, 1), (3, 1 << 26)])
def test_each_tensor_is_whole_on_its_owner_alone(size, bucket):
    answers = in_ranks(size, gather, size, bucket)

    together = {}
    for rank, (owners, own) in enumerate(answers):
        assert owners == answers[0][0]
        assert {name for (_, name), owner in owners.items() if owner == rank} == own.keys()
        assert own.keys().isdisjoint(together)
        together |= own
    assert together == {name: (value.dtype, value.tolist()) for name, value in SHAPES.items()}


def own_bytes(rank, folder):
    """How many bytes of weights, average and optimizer each save of this rank was of."""
    found, real = [], Content.write_tensors

    def write(content, place):
        found.append(sum(v.nbytes for name, held in content.tensors.items() if "-of-" in name for v in held.values()))
        return real(content, place)

    Content.write_tensors = write
    sharded(rank, folder, 2)
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_no_rank_holds_more_of_a_save_than_its_share(size, straight, tmp_path):
    saves = in_ranks(size, own_bytes, tmp_path / "run")

    kinds = [load_file(straight / "checkpoints" / "last" / f"{kind}.safetensors") for kind in KINDS]
    small = 8 * len(kinds[0])  # the optimizer's counts of steps, and a buffer, which the first rank writes
    sizes = [value.nbytes for held in kinds for value in held.values()]
    for own in zip(*saves, strict=True):
        assert sum(own) == pytest.approx(sum(sizes), abs=small)
        assert max(own) <= sum(sizes) / size + max(sizes) + small


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_write_whole_tensors_into_files_of_their_own(size, straight, two, tmp_path):
    run = two if size == 2 else tmp_path / "run"
    if size == 3:
        in_ranks(3, done, run)

    folder, plain = newest(run), newest(straight)
    shards = [f"{kind}-{number:05}-of-{size:05}.safetensors" for kind in KINDS for number in range(1, size + 1)]
    indexes = [f"{kind}.safetensors.index.json" for kind in KINDS]
    files = {*shards, *indexes, "state.safetensors", "state.json", "aliases.json", "task.json"}
    assert verify(folder)["files"].keys() == files
    assert {path.name for path in folder.iterdir()} == {*files, "manifest.json"}
    for kind in KINDS:
        found, wanted = by_index(folder, kind), load_file(plain / f"{kind}.safetensors")
        assert {name for name in found if "/step" not in name} == {name for name in wanted if "/step" not in name}
        for name, value in found.items():
            if name in wanted:
                torch.testing.assert_close(value, wanted[name], rtol=2e-5, atol=1e-6)
    assert rows(run)[-1]["step"] == 6
    assert not list((run / "checkpoints").glob(".*"))


def test_a_weight_of_two_names_is_written_once_and_read_under_both(two):
    found = read_weights(newest(two))

    assert torch.equal(found["output.weight"], found["embedding.weight"])
    assert len({"output.weight", "embedding.weight"} & by_index(newest(two), "model").keys()) == 1
    assert found.keys() == Tied().state_dict().keys()
    assert Tied.load(newest(two)).output.weight.shape == (7, 8)


def test_sharded_weights_begin_a_model_of_one_process(two):
    best = read_weights(two / "checkpoints" / "best", averaged=True)
    for place in (newest(two), two):
        task = Tied()
        told = load_weights(task, place)

        assert len(told.taken) == len(task.state_dict())
        assert torch.equal(task.norm.weight, best["norm.weight"])
    assert not torch.equal(read_weights(newest(two))["norm.weight"], task.norm.weight)


def in_memory(rank):
    best = sharded(rank, None).best_weights
    return {name: value.tolist() for name, value in best.items()} if rank == 0 else None


def test_without_a_folder_the_best_weights_are_on_the_first_rank(straight):
    found, _ = in_ranks(2, in_memory)

    wanted = read_weights(straight / "checkpoints" / "best", averaged=True)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(torch.tensor(found[name]), value, rtol=2e-5, atol=1e-6, check_dtype=False)


class Unjudged(Tied):
    """A task whose validations give nothing to compare."""

    def validation_step(self, batch):
        return {"loss": etude.Loss(self.training_step(batch).sum * float("nan"), 1)}


def unjudged(rank):
    task = Unjudged()
    best = fitted(None, "fsdp", 4, task, **{**OPTIONS, "ema_decay": None}).best_weights
    return [torch.equal(value, best[name]) for name, value in task.state_dict().items()]


def test_where_no_validation_tells_the_best_every_rank_has_the_last_weights():
    assert all(map(all, in_ranks(2, unjudged)))


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "strategy"), [(1, "ddp"), (2, "ddp"), (3, "fsdp")])
def test_it_is_gone_on_from_by_any_number_of_ranks(size, strategy, run, straight, quick_folder):
    if not (quick_folder / "longer").exists():
        shutil.copytree(straight, quick_folder / "longer", symlinks=True)
        whole(0, quick_folder / "longer", 9)
    if size == 1:
        done(0, run, strategy, 9)
    else:
        in_ranks(size, done, run, strategy, 9)

    found = losses(run)
    for name, value in losses(quick_folder / "longer").items():
        assert found[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
    assert verify(run / "checkpoints" / "step-00000009")["step"] == 9


class Mapped(etude.Callback):
    """Finds how many files of tensors the process has mapped into its memory."""

    found = None

    def on_step_end(self, run, outcome):
        self.found = Path("/proc/self/maps").read_text().count(".safetensors")


def mapped(rank, folder):
    callback = Mapped()
    sharded(rank, folder, 7, callbacks=[callback])
    return callback.found


def test_a_run_that_goes_on_keeps_no_file_of_the_checkpoint_mapped(run):
    assert in_ranks(2, mapped, run) == [0, 0]


# -- damage ------------------------------------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def beside(path):
    shutil.copyfile(path, path.with_name("model-00003-of-00003.safetensors"))


DAMAGES = {
    "missing": (lambda path: path.unlink(), "model-00002-of-00002.safetensors is missing"),
    "cut": (lambda path: os.truncate(path, 100), "model-00002-of-00002.safetensors is cut short"),
    "flipped": (flip, "model-00002-of-00002.safetensors is damaged"),
    "one more": (beside, "model-00003-of-00003.safetensors is not one of the checkpoint's files"),
}


def relisted(folder, change=lambda files: None):
    """Let the manifest agree with what the files hold."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest["files"])
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def reindexed(folder, change):
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    change(told["weight_map"])
    index.write_text(json.dumps(told))
    relisted(folder)


def swap(files):
    files["embedding.weight"] = next(file for file in files.values() if file != files["embedding.weight"])


DISAGREEMENTS = {
    "another file": (lambda place: reindexed(place, swap), "about where embedding.weight lies"),
    "a tensor less": (lambda place: reindexed(place, lambda files: files.pop("norm.bias")), "about where norm.bias"),
    "a tensor more": (
        lambda place: reindexed(place, lambda files: files.update(foreign=files["norm.bias"])),
        "about where foreign lies",
    ),
    "a file outside": (
        lambda place: reindexed(place, lambda files: files.update({"norm.bias": "../model.safetensors"})),
        "names '../model.safetensors', which is not one of the checkpoint's files",
    ),
    "no map": (lambda place: reindexed(place, lambda files: files.clear()), "about where"),
    "no index": (
        lambda place: relisted(place, lambda files: files.pop("model.safetensors.index.json")),
        "model.safetensors.index.json is missing",
    ),
    "both forms": (
        lambda place: (
            shutil.copyfile(place / "model-00001-of-00002.safetensors", place / "model.safetensors"),
            relisted(place, lambda files: files.update({"model.safetensors": None})),
        ),
        "holds both model.safetensors and model.safetensors.index.json",
    ),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_named_and_the_checkpoint_before_is_gone_on_from(damage, told, run):
    damage(newest(run) / "model-00002-of-00002.safetensors")
    with pytest.raises(StorageError, match=told):
        verify(newest(run))
    said = []

    whole(0, run, 7, say=said.append)

    assert any(told in one and "Falling back to an earlier checkpoint" in one for one in said), said
    assert any("Resuming from step 5" in one for one in said), said


@pytest.mark.parametrize(("damage", "told"), DISAGREEMENTS.values(), ids=DISAGREEMENTS)
def test_an_index_that_disagrees_with_its_files_is_named_and_nothing_is_read(damage, told, run):
    damage(newest(run))

    for act in (verify, read, read_weights):
        with pytest.raises(StorageError, match=told):
            act(newest(run))


# -- saves that fail ---------------------------------------------------------------------------------------------------


def failing(rank, folder, saves, **options):
    """A run in which the disk of the second rank is full in some of its saves; what the first one said."""
    said, made = [], [0]
    real = Content.write_tensors

    def write(content, place):
        made[0] += 1
        if rank == 1 and made[0] in saves:
            next(iter(place.parent.glob(".partial-*"))).joinpath("model-00002-of-00002.safetensors").write_bytes(
                b"half"
            )
            raise OSError(errno.ENOSPC, "full")
        return real(content, place)

    Content.write_tensors = write
    sharded(rank, folder, say=said.append, **options)
    return said


def test_a_write_that_fails_on_the_second_rank_fails_the_save_and_training_goes_on(two, tmp_path):
    said, _ = in_ranks(2, failing, tmp_path / "run", (1, 3))

    told = [one for one in said if "Training continues and tries again at the next save" in one]
    assert len(told) == 2
    assert "Rank 1: Cannot write its part of" in told[0]
    assert "checkpoints/step-00000002: No space left on device; it needs" in told[0]
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if not path.is_symlink())
    assert names == ["step-00000004", "step-00000006"]
    assert weights(tmp_path / "run") == weights(two)
    assert rows(tmp_path / "run") == rows(two)


def test_three_of_them_in_a_row_end_all_ranks_and_leave_the_earlier_checkpoints(two, tmp_path):
    found = ended(2, failing, tmp_path, tmp_path / "run", (2, 3, 4))

    assert [code for code, _, _ in found] == [5, 5]
    assert "Rank 1: Cannot write its part of" in found[0][1]
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} >= {"last", "step-00000002"}
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000002"]
    assert not list(checkpoints.glob(".partial-*"))
    in_ranks(2, done, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(two)
    assert weights(tmp_path / "run") == weights(two)


def rows_that_fail(rank, folder):
    """A run in which the first rank cannot make its rows durable at its first save."""
    said, real, made = [], Record.mark, []

    def mark(record):
        made.append(record)
        if rank == 0 and len(made) == 1:
            raise StorageError("Cannot write metrics.jsonl: it is full.")
        return real(record)

    Record.mark = mark
    sharded(rank, folder, say=said.append)
    return said


def test_rows_that_are_not_durable_on_the_first_rank_fail_the_save_on_all(two, tmp_path):
    said, _ = in_ranks(2, rows_that_fail, tmp_path / "run")

    assert sum("metrics.jsonl: it is full. Training continues" in one for one in said) == 1
    assert weights(tmp_path / "run") == weights(two)


def killed(rank, folder, victim, save):
    """A run in which a rank is killed in the middle of one of its saves."""
    real, made = Content.write_tensors, [0]

    def write(content, place):
        made[0] += 1
        if rank == victim and made[0] == save:
            for name in content.tensors:
                (place / name).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(content, place)

    Content.write_tensors = write
    sharded(rank, folder)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_while_it_writes_leaves_complete_checkpoints_alone(victim, two, tmp_path):
    found = ended(2, killed, tmp_path, tmp_path / "run", victim, 2)

    assert found[victim][0] == -signal.SIGKILL
    assert found[1 - victim][0] == 6
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000002"]
    assert verify(checkpoints / "step-00000002")["step"] == 2
    in_ranks(2, done, tmp_path / "run")
    assert not list(checkpoints.glob(".*"))
    assert rows(tmp_path / "run") == rows(two)
    assert weights(tmp_path / "run") == weights(two)


def blind(rank, folder):
    """A run whose second rank does not see the folder of the first."""
    writers_module.SEEN_SECONDS = 0.2
    if rank == 1:
        writers_module.Path = lambda path: type(folder)(f"/nowhere{path}")
    sharded(rank, folder)


def test_a_rank_that_does_not_see_the_folder_ends_all_before_the_first_step(tmp_path):
    found = ended(2, blind, tmp_path, tmp_path / "run")

    assert [code for code, _, _ in found] == [6, 6]
    for _, said, seconds in found:
        assert "which the first rank has made, is not there on its machine" in said
        assert "must lie on storage that all of them share" in said
        assert seconds < 30
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not rows(tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def slow(rank, folder):
    """A run whose second rank takes longer over a save than the others wait."""
    real, made, said = Content.write_tensors, [0], []

    def write(content, place):
        made[0] += 1
        if rank == 1 and made[0] == 1:
            time.sleep(5)
        return real(content, place)

    Content.write_tensors = write
    sharded(rank, folder, say=said.append, timeout="3 seconds")
    return said


def test_a_part_that_is_not_written_in_time_fails_the_save(two, tmp_path):
    said, _ = in_ranks(2, slow, tmp_path / "run")

    assert sum("Rank 1: its part was not written within 3 s (distributed.timeout)" in one for one in said) == 1
    steps = [int(path.name[5:]) for path in sorted((tmp_path / "run" / "checkpoints").glob("step-*"))]
    assert all(step > 2 for step in steps)
    assert all(before < after for before, after in pairwise(steps))
    assert weights(tmp_path / "run") == weights(two)
