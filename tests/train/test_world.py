"""Ranks meet, agree, follow the first, and end together."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from in_ranks import in_ranks
from small_runs import Regression, dataset, loaders, rows, trainer, weights
from torch.utils.data import DataLoader

import etude
from etude.base.errors import DistributedError
from etude.train.same import check_same
from etude.train.world import ALONE, find_place, joined, refuse_ranks
from etude.train.world.place import Place, hosts

# -- who is which ------------------------------------------------------------------------------------------------------

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "MASTER_ADDR": "b",
    "MASTER_PORT": "7",
}


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (TORCHRUN, Place(1, 4, 1, "a", 29500, is_kept=False)),
        (TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"}, Place(1, 4, 1, "a", 29500, is_kept=True)),
        (SLURM, Place(3, 4, 1, "gpu07", 15012, is_kept=False)),
        (SLURM | {"MASTER_ADDR": "c", "MASTER_PORT": "8"}, Place(3, 4, 1, "c", 8, is_kept=False)),
        (MPIRUN, Place(1, 2, 0, "b", 7, is_kept=False)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_NTASKS": "4"}, None),
        ({}, None),
    ],
)
def test_a_launcher_tells_which_rank_a_process_is(told, place):
    assert find_place(told) == place


def test_hosts_of_slurm():
    assert list(hosts("n[1-3]x,m,k[08,10-11]")) == ["n1x", "n2x", "n3x", "m", "k08", "k10", "k11"]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({**TORCHRUN, "MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({**TORCHRUN, "RANK": "x"}, "RANK must be a number, but is 'x'"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, "MASTER_ADDR"),
    ],
)
def test_what_a_launcher_leaves_out_is_named(told, message):
    with pytest.raises(DistributedError, match=message):
        find_place(told)


def test_a_process_that_is_one_of_several_does_nothing_by_itself():
    with pytest.raises(DistributedError, match=r"^This process is rank 1 of 4, but this is done by one process"):
        refuse_ranks(TORCHRUN)
    refuse_ranks({})


def test_a_process_that_is_alone_joins_nobody():
    with joined({}) as here:
        assert here is None
    assert ALONE.total({"a": 2.0}, [True]) == ({"a": 2.0}, [True])


# -- what they tell each other -----------------------------------------------------------------------------------------


def talk(rank):
    with joined() as here:
        world = here.world
        numbers = {"all": 2.0**52 + rank, "last": 1.0} if rank == 2 else {"all": 1.0, f"only {rank}": 0.5}
        first = world.total(numbers, [rank == 1, False])
        again = world.total({"all": 1.0})
        tensors = [torch.full((3, 2), float(rank)), torch.full((2,), rank, dtype=torch.int64), torch.ones(4).double()]
        world.add_up(tensors)
        sparse = torch.sparse_coo_tensor([[rank, 3]], [1.0, 2.0], (4,), check_invariants=False)
        world.add_up([sparse])
        spread = [torch.full((2, 2), float(rank)), torch.full((), float(rank))]
        world.spread(spread)
        said = world.agree({"rank": rank} if rank else None)
        values = [tensor.tolist() for tensor in (*tensors, sparse.to_dense(), *spread)]
        return first, again, values, said, world.gather(rank), world.agree(None)


def test_ranks_tell_each_other_numbers_tensors_and_values():
    answers = in_ranks(3, talk)

    assert answers[0] == answers[1] == answers[2]
    first, again, values, said, gathered, nothing = answers[0]
    assert first == ({"all": 2.0**52 + 4, "last": 1.0, "only 0": 0.5, "only 1": 0.5}, [True, False])
    assert again == ({"all": 3.0}, [])
    assert values == [[[3.0] * 2] * 3, [3, 3], [3.0] * 4, [1.0, 1.0, 1.0, 6.0], [[0.0] * 2] * 2, 0.0]
    assert (said, gathered, nothing) == ({"rank": 1}, [0, 1, 2], None)


def join_twice(rank):
    found = []
    for _ in range(2):
        with joined() as here:
            found.append(here.world.gather(rank))
    return found


def test_a_process_can_join_again():
    assert in_ranks(2, join_twice) == [[[0, 1], [0, 1]]] * 2


# -- runs --------------------------------------------------------------------------------------------------------------


class Stops(etude.Callback):
    def __init__(self, rank, at):
        self.rank, self.at = rank, at

    def on_step_end(self, run, outcome):
        if self.rank == 1 and run.progress.step == self.at:
            return etude.Stop("enough")
        return None


def ended(rank, folder, *, stop=None, kill=None, **options):
    """A run of two ranks, of which the second one asks for a stop, or gets a signal, at a step."""
    if rank == 1 and kill is not None:
        options["callbacks"] = [Kills(kill)]
    if stop is not None:
        options["callbacks"] = [Stops(rank, stop)]
    try:
        result = trainer(folder, **options).fit(Regression(dropout=0.0), *loaders())
    except SystemExit as ending:
        return ending.code, ending.result.progress.step, ending.result.reason
    return 0, result.progress.step, result.reason


class Kills(etude.Callback):
    def __init__(self, at):
        self.at = at

    def on_step_end(self, run, outcome):
        if run.progress.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_all_ranks_stop_where_one_asks_for_it(tmp_path):
    assert in_ranks(2, asks, tmp_path / "stopped") == [(0, 6, "enough")] * 2


def asks(rank, folder):
    return ended(rank, folder, stop=5)


def killed_at_five(rank, folder):
    return ended(rank, folder, kill=5)


def test_a_signal_to_one_rank_ends_all_after_a_save(tmp_path):
    answers = in_ranks(2, killed_at_five, tmp_path / "run")

    assert answers == [(143, 6, "interrupted by SIGTERM")] * 2
    assert (tmp_path / "run" / "checkpoints" / "last").resolve().name == "step-00000006"


def test_an_interrupted_run_of_two_ranks_ends_with_the_bits_of_one_that_was_not(tmp_path):
    in_ranks(2, ended, tmp_path / "straight")
    in_ranks(2, killed_at_five, tmp_path / "broken")
    in_ranks(2, ended, tmp_path / "broken")

    assert weights(tmp_path / "straight") == weights(tmp_path / "broken")
    assert rows(tmp_path / "straight") == rows(tmp_path / "broken")


def test_a_run_goes_on_with_any_number_of_ranks_in_the_same_order(tmp_path):
    """From two ranks to one, three and two: the losses of each step are those of one rank, to rounding."""
    trainer(tmp_path / "straight", max_duration="20 steps").fit(Regression(dropout=0.0), *loaders())
    for size, until in ((2, 5), (1, 10), (3, 15), (2, 20)):
        if size == 1:
            goes_on(0, tmp_path / "changing", until)
        else:
            in_ranks(size, goes_on, tmp_path / "changing", until)

    found, straight = (
        {row["step"]: row["train/loss"] for row in rows(tmp_path / name) if "train/loss" in row}
        for name in ("changing", "straight")
    )
    assert found.keys() == straight.keys()
    for step, loss in straight.items():
        assert found[step] == pytest.approx(loss, rel=1e-5), step


def goes_on(rank, folder, until):
    schedule = {"schedule": "linear", "peak": 1e-2, "over": "21 steps"}
    trainer(folder, max_duration=f"{until} steps", learning_rate=schedule).fit(Regression(dropout=0.0), *loaders())


class Breaks(Regression):
    """Whose loss is not a number where a batch holds a certain sample."""

    def training_step(self, batch):
        loss = super().training_step(batch)
        if (batch[0] == dataset().tensors[0][17]).all(dim=1).any():
            return etude.Loss(loss.sum * float("nan"), loss.count)
        return loss


def breaks(rank, folder):
    result = trainer(folder, max_duration="1 epoch").fit(Breaks(dropout=0.0), *loaders())
    return result.skipped, result.progress.step


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(tmp_path):
    assert in_ranks(2, breaks, tmp_path / "run") == [(1, 7)] * 2


def differs(rank, folder):
    try:
        trainer(folder, learning_rate=1e-3 * (rank + 1)).fit(Regression(), *loaders())
    except DistributedError as error:
        return str(error)
    return "nothing"


def test_a_rank_with_another_config_is_named(tmp_path):
    for said in in_ranks(2, differs, tmp_path / "run"):
        assert said == (
            "Rank 1 has another optimizer.learning_rate than rank 0: 0.002 instead of 0.001. All ranks must be started "
            "by the same command, with the same files."
        )


def begins_anywhere(rank):
    torch.manual_seed(rank)
    model = torch.nn.Linear(4, 1)
    torch.manual_seed(0)
    quiet = {"say": lambda _: None, "progress": False, "device": "cpu"}
    result = etude.fit(model, dataset(), loss=torch.nn.functional.mse_loss, max_duration="3 steps", **quiet)
    return [parameter.tolist() for parameter in model.parameters()], result.history[-1]["step"]


def test_a_model_that_each_rank_has_drawn_begins_as_that_of_the_first():
    first, second = in_ranks(2, begins_anywhere)

    assert first == second


def iterates(rank, batches):
    made = [(torch.arange(n * 4.0).reshape(n, 4), torch.ones(n, 1)) for n in batches]
    quiet = {"say": lambda _: None, "progress": False, "device": "cpu", "seed": 3}
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    history = etude.fit(
        model, made, loss=torch.nn.functional.mse_loss, max_duration="2 epochs", log_every="1 step", **quiet
    ).history
    return [row["train/loss"] for row in history if "train/loss" in row]


def test_batches_of_an_iterable_are_shared_by_their_rows():
    alone = iterates(0, [5, 3, 1])

    for found in in_ranks(2, iterates, [5, 3, 1]):
        assert found == pytest.approx(alone, rel=1e-5)


def test_the_second_rank_writes_nothing(tmp_path):
    in_ranks(2, ended, tmp_path / "run")

    names = {path.name for path in (tmp_path / "run").iterdir()}
    trainer(tmp_path / "alone").fit(Regression(dropout=0.0), *loaders())
    assert names == {path.name for path in (tmp_path / "alone").iterdir()}
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len([row for row in logged if row["step"] == 3 and "train/loss" in row]) == 1


class Order:
    """A metric that depends on the order of the batches, in its digits and in its rounding."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.value, self.places = 0.1, 0.0

    def update(self, found):
        self.value = self.value * 1.1 + float(found.sum())
        self.places = (self.places * 7 + len(found)) % 1e9

    def compute(self):
        return {"value": self.value, "places": self.places}


class Measured(Regression):
    def configure_metrics(self):
        return {"order": Order()}

    def validation_step(self, batch):
        loss = self.training_step(batch)
        found = self.layers(batch[0])
        self.metrics["order"].update(found)
        return etude.StepOutput(loss, outputs=found)


class Seen(etude.Callback):
    def __init__(self):
        self.batches = []

    def on_validation_batch_end(self, run, batch, outputs):
        self.batches.append((batch[0].tolist(), outputs.tolist()))


def measured(rank):
    """What a validation of weights that do not move gives, and what a callback sees of it."""
    seen = Seen()
    data = DataLoader(dataset(), batch_size=8), DataLoader(dataset(35), batch_size=4)
    still = {"max_duration": "3 steps", "eval_every": "3 steps", "learning_rate": 1e-30, "ema_decay": None}
    result = trainer(None, callbacks=[seen], save_every="3 steps", **still).fit(Measured(dropout=0.0), *data)
    return {name: value for name, value in result.metrics.items() if name.startswith("val/")}, seen.batches


@pytest.mark.parametrize("size", [2, 4])
def test_a_validation_has_the_bits_of_one_process_and_its_batches_come_in_order(size):
    alone, batches = measured(0)

    assert {"val/loss", "val/value", "val/places", "val/error"} <= alone.keys()
    for found, seen in in_ranks(size, measured):
        assert found == alone
        assert seen == batches


def differs_in_data(rank):
    job = SimpleNamespace(about={"a": {"b": 1}}, contents={"train": f"hash {rank}"})
    with joined() as here:
        try:
            check_same(here.world, job)
        except DistributedError as error:
            return str(error)
    return "nothing"


def test_a_rank_with_other_data_is_named():
    for said in in_ranks(2, differs_in_data):
        assert said.startswith("Rank 1 has another content of train than rank 0: hash 1 instead of hash 0.")
