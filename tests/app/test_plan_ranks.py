"""A plan for many ranks: shares, memory, communication and time by formulas, and what the shell shows of it."""

import itertools
import json
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Size

from etude.app.cli.main import main
from etude.app.plan.ranks.footprint import Footprint, Part, Peaks
from etude.app.plan.ranks.imagined import Imagined, Kind, Level
from etude.app.plan.ranks.largest import Batch, Shares
from etude.app.plan.ranks.ranks import Given, memory_of, notes_of, plan_ranks, rank_of, sent_in_a_step
from etude.app.plan.ranks.speed import measured, read_speed
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.tasks.config import load_config

WORDS = ("one", "two", "three", "four", "five", "six")
CONFIG = """
[task]
type = "translation"
eval_search_samples = 0

[data]
train = "train.tsv"
val = "train.tsv"

[tokenizer]
type = "word"

[model]
d_model = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 32

[train]
max_duration = "2 epochs"
batch_size = 8
device = "cpu"
precision = "float32"
sanity_batches = 0

[log]
tensorboard = false
progress = false
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    texts = [" ".join(words) for n in (1, 2, 3) for words in itertools.islice(itertools.product(WORDS, repeat=n), 14)]
    rows = [f"{text}\t{' '.join(reversed(text.split()))} one\n" for text in texts]
    (place / "train.tsv").write_text("source\ttarget\n" + "".join(rows))
    (place / "small.toml").write_text(CONFIG)
    return place


@pytest.fixture
def config(folder, tmp_path):
    return lambda overrides=(): load_config(
        folder / "small.toml", {"run.dir": str(tmp_path / "runs"), **dict(overrides)}
    )


@pytest.fixture(scope="module")
def planned(folder):
    loaded = load_config(folder / "small.toml", {"run.dir": str(folder / "runs"), "train.ema_decay": 0.9})
    return plan_ranks(loaded, [1, 2, 8], Given(speed=1000.0, bandwidth=1e6))


BACKWARD, UPDATE = (Level(0, 1000),), (Level(400, 0),)


def found(*, backward=BACKWARD, update=UPDATE, accumulate=1, precision="float32", worlds=(1, 4), least=8):
    """A footprint of a model with a root of 100 numbers and two units of 200."""
    parts = [Part(Size([10, 10]), 4), Part(Size([20, 10]), 4, 0), Part(Size([20, 10]), 4, 1)]
    return Footprint(
        parameters=parts,
        optimizer=[Part(part.shape, 4) for part in parts for _ in range(2)],
        average=[],
        buffers=0,
        steps={world: Peaks(backward, update) for world in worlds},
        shares=Shares({world: Batch(None, 8 // world, 8) for world in worlds}, least, 8, 1),
        horizon=Horizon(steps=10.0, steps_per_epoch=5.0, samples_per_step=8.0 * accumulate),
        accumulate=accumulate,
        precision=precision,
        tokens=80.0,
    )


# -- formulas --------------------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 3000), columns=st.integers(1, 7), world=st.integers(1, 1024))
@settings(max_examples=50, deadline=None)
def test_the_largest_piece_of_a_tensor_is_the_first_that_torch_cuts(rows, columns, world):
    piece = torch.zeros(rows, columns).chunk(world)[0]

    assert Part(Size([rows, columns]), 4).share(world) == piece.numel() * 4


def test_a_number_alone_is_whole_on_every_rank():
    assert Part(Size([]), 4).share(1024) == 4


@pytest.mark.parametrize("world", [2, 8, 1024])
def test_a_ring_sends_each_gradient_almost_twice(world):
    """Counted in a simulated ring: N - 1 steps that scatter the sum, N - 1 that gather it, a piece in each."""
    pieces = (world - 1) + (world - 1)

    assert sent_in_a_step(found(), world, "ddp", None) == pytest.approx(pieces * 2000 / world)


def test_a_sharded_model_sends_its_units_twice_its_root_once_and_its_gradients_once_for_each_batch():
    assert sent_in_a_step(found(), 4, "fsdp", None) == 3 / 4 * (400 + 2 * 1600 + 2000)
    assert sent_in_a_step(found(accumulate=3), 4, "fsdp", None) == 3 * 3 / 4 * (400 + 2 * 1600 + 2000)
    assert sent_in_a_step(found(precision="bfloat16"), 4, "fsdp", None) == 3 / 4 * (200 + 2 * 800 + 2000)


def test_averages_every_so_many_steps_divide_what_is_sent():
    assert sent_in_a_step(found(), 4, "ddp", 50.0) == sent_in_a_step(found(), 4, "ddp", None) / 50


def test_frozen_parameters_have_no_gradients_to_send():
    whole = found()
    frozen = [part._replace(trained=number > 0) for number, part in enumerate(whole.parameters)]
    vars(whole)["parameters"] = frozen

    assert sent_in_a_step(whole, 4, "ddp", None) == 2 * 3 / 4 * 1600


def test_the_peak_is_that_of_the_moment_at_which_all_together_is_most():
    moments = (Level(0, 1000), Level(800, 500), Level(2000, 10))

    memory = memory_of(found(backward=moments), 1, "alone")

    assert (memory.gradients, memory.activations) == (2000, 10)
    assert memory.total == 2000 + 4000 + 2010


def test_several_ranks_hold_a_copy_of_their_gradients_while_they_sum_them_up():
    memory = memory_of(found(backward=(Level(0, 100),)), 4, "ddp")

    assert (memory.gradients, memory.activations, memory.gathered) == (2000, 0, 2000)


def test_a_sharded_model_holds_pieces_of_what_it_keeps_and_whole_what_it_computes_with():
    memory = memory_of(found(), 4, "fsdp")

    assert memory.parameters == 120 + 2 * 200
    assert memory.optimizer == 2 * memory.parameters
    assert memory.activations == 1000
    assert memory.gathered == 400 + 2 * 800 + 2 * 800


def test_sixteen_bits_halve_the_weights_that_are_gathered_but_not_the_gradients():
    assert memory_of(found(precision="bfloat16"), 4, "fsdp").gathered == 200 + 2 * 400 + 2 * 800


def test_a_step_takes_between_the_longer_of_computing_and_sending_and_both():
    rank = rank_of(found(), 4, "ddp", Given(speed=10.0, bandwidth=1000.0))

    assert rank.time.computing == 80 / 4 / 10
    assert rank.time.sending == 3.0
    assert (rank.time.least, rank.time.most) == (3.0, 5.0)


def test_ranks_wait_for_the_one_with_a_sample_more():
    rank = rank_of(found(worlds=(3,)), 3, "ddp", Given(speed=10.0))

    assert rank.time.computing == pytest.approx(80 * (3 / 8) / 10)
    assert rank.time.most is None


# -- imagined tensors ------------------------------------------------------------------------------------------------


def test_imagined_numbers_take_the_memory_that_they_would_and_give_it_back():
    imagined = Imagined()

    with imagined:
        big = torch.zeros(1 << 20, 1 << 10)
        imagined.mark([big], Kind.PARAMETERS)
        product = big[:4] @ big[:8].T
        held = imagined.held(Kind.OTHER)
        del product

    assert imagined.held(Kind.PARAMETERS) == 4 << 30
    assert held == 4 * 8 * 4
    assert imagined.held(Kind.OTHER) == 0


def test_whole_numbers_are_real_among_imagined_ones():
    with Imagined():
        lengths = torch.tensor([3, 1])
        mask = torch.arange(3) < lengths[:, None]
        chosen = torch.zeros(2, 3, 5)[mask]

    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert chosen.shape == (4, 5)


def test_what_is_asked_of_imagined_numbers_is_that_they_are_finite():
    with Imagined():
        numbers = torch.zeros(3)

        assert bool(torch.isfinite(numbers).all())
        assert not bool(torch.isnan(numbers).any())
        assert math.isfinite(numbers.sum().item())


@pytest.mark.parametrize("steps", [1, 3, 9, 40])
def test_the_workspace_of_a_recurrent_layer_is_as_large_as_the_library_makes_it(steps):
    def layer(numbers):
        cell = torch.nn.LSTM(64, 128, batch_first=True)
        inputs = torch.zeros(8, steps, 64)
        numbers.mark([*cell.parameters(), inputs], Kind.PARAMETERS)
        return cell, cell(inputs)

    imagined, real = Imagined(), Imagined()
    real._given = lambda func, args, kwargs: func(*args, **kwargs)
    with imagined:
        kept = layer(imagined)
    with real:
        kept = kept, layer(real)

    assert imagined.held(Kind.OTHER) == pytest.approx(real.held(Kind.OTHER), rel=0.01)
    assert len(kept) == 2


# -- the plan of a run -----------------------------------------------------------------------------------------------


def test_shares_grow_smaller_with_the_ranks_and_memory_with_them(planned):
    alone, *two, _, eight = planned.ranks
    assert [rank.samples for rank in planned.ranks] == [8, 4, 4, 1, 1]
    assert alone.memory.activations > two[0].memory.activations > eight.memory.activations
    assert two[0].memory.parameters == alone.memory.parameters >= 4 * planned.parameters
    assert two[1].memory.optimizer < 0.6 * alone.memory.optimizer


def test_an_average_takes_as_much_as_the_weights(planned):
    assert planned.ranks[0].memory.average >= 4 * planned.parameters


def test_adam_keeps_two_numbers_for_each_and_a_count(planned):
    optimizer = planned.ranks[0].memory.optimizer

    assert 0 <= optimizer - 8 * planned.parameters <= 4 * 200


def test_steps_do_not_hang_on_the_ranks(planned):
    assert planned.steps_per_epoch == 5
    assert planned.steps == 10


def test_activations_that_are_computed_again_are_not_kept(config, planned):
    again = plan_ranks(config({"distributed.checkpoint_activations": True}), [1], Given())

    assert again.ranks[0].memory.activations < planned.ranks[0].memory.activations


def test_local_steps_send_the_weights_once_in_so_many(config):
    local = {"distributed.reduce": "local", "distributed.average_every": "2 epochs", "distributed.strategy": "fsdp"}
    plan = plan_ranks(config(local), [2], Given())

    assert plan.ranks[0].sent == 4 * plan.parameters / 10
    assert plan.chosen == "fsdp"


def test_more_ranks_than_a_batch_has_samples_are_refused(config):
    with pytest.raises(
        ConfigError, match=r"--world is 9, but the largest batch of this run has 8 samples, so that 1 of them"
    ):
        plan_ranks(config(), [1, 9], Given())


def test_a_smaller_batch_than_there_are_ranks_is_told_of():
    few = found(least=2)

    assert list(notes_of(few, [2])) == []
    assert "of 4 or 8 ranks some have none of such a batch" in next(notes_of(few, [1, 4, 8]))


@pytest.mark.parametrize(
    ("worlds", "given", "told"),
    [
        ([0], Given(), "--world must be at least 1, but is 0"),
        ([2], Given(speed=-1.0), "--speed must be a positive number, but is -1"),
        ([2], Given(bandwidth=math.inf), "--bandwidth must be a positive number, but is inf"),
        ([2], Given(bandwidth=math.nan), "--bandwidth must be a positive number, but is nan"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_its_flag(config, worlds, given, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        plan_ranks(config(), worlds, given)


# -- speed -----------------------------------------------------------------------------------------------------------


def test_the_speed_of_a_run_is_the_median_of_its_log_lines(tmp_path):
    rows = [{"step": 1}, *({"train/tokens_per_second": speed} for speed in (10.0, 30.0, 20.0, None))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"train/tok')

    assert measured(tmp_path) == 20.0
    assert read_speed(str(tmp_path), tmp_path / "none") == 20.0
    assert read_speed("12.5", tmp_path) == 12.5
    assert read_speed(None, tmp_path) == 20.0
    assert read_speed(None, tmp_path / "none") is None

    (tmp_path / "config.toml").write_text("[distributed]\nprocesses = 2\n")
    assert measured(tmp_path) == 10.0


def test_a_speed_that_is_neither_number_nor_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--speed must be tokens a second of one rank, or the folder of a run"):
        read_speed("quick", tmp_path)


# -- the shell -------------------------------------------------------------------------------------------------------


def test_the_shell_prints_a_table_of_memory_and_one_of_time(folder, capsys, tmp_path):
    picture = tmp_path / "ranks.svg"
    command = ["plan", str(folder / "small.toml"), "--world", "2,1", "--speed", "1000", "--bandwidth", "1e6"]

    code = main([*command, "--output", str(picture)])

    out = capsys.readouterr().out
    assert code == 0
    assert "5 an epoch, 10 in all, whatever the number of ranks" in out
    assert re.search(r"^ +1  alone +8 ", out, re.MULTILINE)
    assert re.search(r"^ +2  fsdp +4 ", out, re.MULTILINE)
    assert "communication and time of a step" in out
    assert "2 ranks, fsdp" in picture.read_text()


def test_the_plan_as_an_object_has_bytes_and_seconds(folder, capsys):
    main(["plan", str(folder / "small.toml"), "--world", "2", "--json"])

    made = json.loads(capsys.readouterr().out)
    ddp, fsdp = made["ranks"]
    assert (ddp["world"], ddp["strategy"], fsdp["strategy"]) == (2, "ddp", "fsdp")
    assert ddp["memory"]["total"] == sum(size for name, size in ddp["memory"].items() if name != "total")
    assert ddp["seconds"] == {"computing": None, "sending": None, "least": None, "most": None}
    assert ddp["sent"] == 4 * made["parameters"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--world", "two"], "--world must be a number of ranks, or several such as 8,64,1024, but is two."),
        (["--speed", "3"], "--speed is for the plan of many ranks: give --world N as well."),
        (["--bandwidth", "3"], "--bandwidth is for the plan of many ranks: give --world N as well."),
        (["--world", "2", "--steps", "3"], "--steps is for the plan of the steps, which --world does not show"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(folder, capsys, flags, told):
    code = main(["plan", str(folder / "small.toml"), *flags])

    assert code == 2
    assert told in capsys.readouterr().err
