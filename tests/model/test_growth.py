"""Laws of transfers: old blocks in the corners of declared parts, names and layers matched, nothing guessed."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from etude.base.errors import ConfigError
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.growth import Growth, plan_transfer
from etude.model.growth.axes import paired
from etude.model.initialisers import initialise
from etude.model.layers.growing import Dim, classes, gives, row_of, takes
from etude.model.recurrent import Recurrent, RecurrentConfig

INIT = Growth()


class Holder(nn.Module):
    """One parameter whose parts are declared."""

    def __init__(self, shape, parts=None, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, value))
        if parts is not None:
            self.growth_parts = lambda: {"weight": parts}


def moved(old, new, how=INIT, **state):
    """The new module after a transfer from the old one."""
    plan_transfer(old, new, how).apply(state or old.state_dict(), new)
    return new


def numbered(*shape):
    count = torch.Size(shape).numel()
    return torch.arange(1.0, count + 1).view(shape)


# -- parts ---------------------------------------------------------------------------------------------------------


def test_an_old_matrix_lies_in_the_corner_of_the_new_one():
    old, new = nn.Linear(2, 2, bias=False), nn.Linear(4, 3, bias=False)
    nn.init.constant_(new.weight, -1.0)

    moved(old, new, weight=numbered(2, 2))

    assert new.weight.tolist() == [[1, 2, -1, -1], [3, 4, -1, -1], [-1, -1, -1, -1]]


def test_each_gate_lies_in_the_corner_of_its_own():
    old, new = Holder((8,), ((2, 2, 2, 2),)), Holder((12,), ((3, 3, 3, 3),), -1.0)

    moved(old, new, weight=numbered(8))

    assert new.weight.tolist() == [1, 2, -1, 3, 4, -1, 5, 6, -1, 7, 8, -1]


def test_inputs_of_two_sources_grow_apart():
    old, new = Holder((1, 6), ((1,), (2, 4))), Holder((1, 7), ((1,), (3, 4)), -1.0)

    moved(old, new, weight=numbered(1, 6))

    assert new.weight.tolist() == [[1, 2, -1, 3, 4, 5, 6]]


SIZES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5)


@given(st.lists(SIZES, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_parts_are_copied_as_slices_are(dims):
    sizes = [list(zip(*dim, strict=True)) for dim in dims]
    old_shape, new_shape = ([sum(dim[side]) for dim in sizes] for side in (0, 1))
    old = Holder(old_shape, [dim[0] for dim in sizes])
    new = Holder(new_shape, [dim[1] for dim in sizes], -1.0)
    value = torch.rand(old_shape)
    expected = torch.full(new_shape, -1.0)
    _copy_parts(value, expected, dims)

    moved(old, new, Growth(allow_shrink=True), weight=value)

    assert torch.equal(new.weight, expected)


def _copy_parts(old, new, dims):
    """Every combination of parts, one slice each."""
    if not dims:
        new.copy_(old)
        return
    at_old = at_new = 0
    for before, after in dims[0]:
        for step in range(min(before, after)):
            _copy_parts(old[at_old + step], new[at_new + step], dims[1:])
        at_old, at_new = at_old + before, at_new + after


def test_more_parts_than_before_are_new_behind_the_old_ones():
    old, new = Holder((4,), ((2, 2),)), Holder((9,), ((3, 3, 3),), -1.0)

    moved(old, new, weight=numbered(4))

    assert new.weight.tolist() == [1, 2, -1, 3, 4, -1, -1, -1, -1]


def test_a_wider_kernel_keeps_its_centre():
    old, new = nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Conv1d(1, 1, 7, padding=3, bias=False)
    nn.init.constant_(new.weight, -1.0)

    moved(old, new, weight=numbered(1, 1, 3))

    assert new.weight.flatten().tolist() == [-1, -1, 1, 2, 3, -1, -1]


def test_a_kernel_without_padding_keeps_its_beginning():
    old, new = nn.Conv1d(1, 1, 2, bias=False), nn.Conv1d(1, 1, 4, bias=False)
    nn.init.constant_(new.weight, -1.0)

    moved(old, new, weight=numbered(1, 1, 2))

    assert new.weight.flatten().tolist() == [1, 2, -1, -1]


# -- modules -------------------------------------------------------------------------------------------------------


def blocks(old, new, name, how=INIT):
    """Of each dimension, the places of the new tensor that are old ones, and these."""
    entry = plan_transfer(old, new, how).entries[name]
    found = []
    for axis in entry.blocks:
        places = {}
        for block in axis:
            places |= {block.new + step: block.old + step for step in range(block.size)}
        found.append([places.get(place) for place in range(max(places) + 1)])
    return found


def test_fused_heads_of_torchs_attention_grow_apart():
    old, new = nn.MultiheadAttention(4, 2), nn.MultiheadAttention(9, 3)

    rows, columns = blocks(old, new, "in_proj_weight")
    outputs, inputs = blocks(old, new, "out_proj.weight")

    heads = [0, 1, None, 2, 3]  # two heads of 2, in the corners of three of 3
    assert rows == [*heads, *[None] * 4, 4, 5, None, 6, 7, *[None] * 4, 8, 9, None, 10, 11]
    assert columns == outputs == [0, 1, 2, 3]
    assert inputs == heads


def test_heads_are_one_row_where_they_are_widened():
    old, new = nn.MultiheadAttention(4, 2), nn.MultiheadAttention(9, 3)

    rows, _ = blocks(old, new, "in_proj_weight", Growth(heads="widen"))

    assert rows == [0, 1, 2, 3, *[None] * 5, 4, 5, 6, 7, *[None] * 5, 8, 9, 10, 11]


def decoder(**options):
    sizes = {"d_model": 8, "heads": 4, "kv_heads": 2, "layers": 1, "feedforward": 6, "max_positions": 16}
    return Decoder(DecoderConfig(**sizes | options), 11)


def test_heads_that_share_keys_stay_with_them():
    old = decoder(activation="swiglu", positions="none")
    new = decoder(activation="swiglu", positions="none", d_model=12, heads=6, feedforward=9)  # two heads of 2 -> three

    rows, columns = blocks(old, new, "layers.0.attention.projection.weight")
    _, inputs = blocks(old, new, "layers.0.attention.output.weight")
    inner, _ = blocks(old, new, "layers.0.feedforward.inner.weight")

    queries = [0, 1, 2, 3, None, None, 4, 5, 6, 7]
    assert rows == [*queries, None, None, 8, 9, 10, 11, 12, 13, 14, 15]
    assert columns == list(range(8))
    assert inputs == queries
    assert inner == [*range(6), None, None, None, *range(6, 12)]


def test_turned_heads_keep_their_halves_together():
    old, new = decoder(positions="rotary", kv_heads=4), decoder(positions="rotary", kv_heads=4, d_model=16)

    rows, _ = blocks(old, new, "layers.0.attention.projection.weight")

    assert rows[:16] == [0, None, 1, None, 2, None, 3, None, 4, None, 5, None, 6, None, 7, None]  # queries
    assert rows[32:] == [16, 17, None, None, 18, 19, None, None, 20, 21, None, None, 22, 23]  # values


def test_heads_that_are_turned_from_now_on_are_the_same_heads():
    old, new = decoder(positions="none"), decoder(positions="rotary")

    assert plan_transfer(old, new, INIT).is_identity


def test_both_directions_of_an_lstm_grow_apart():
    old = nn.LSTM(3, 2, num_layers=2, bidirectional=True)
    new = nn.LSTM(4, 3, num_layers=2, bidirectional=True)

    rows, columns = blocks(old, new, "weight_ih_l1_reverse")
    _, first = blocks(old, new, "weight_ih_l0")
    (bias,) = blocks(old, new, "bias_hh_l0_reverse")

    gates = [0, 1, None, 2, 3, None, 4, 5, None, 6, 7]
    assert rows == bias == gates
    assert columns == [0, 1, None, 2, 3]
    assert first == [0, 1, 2]


def test_a_projected_lstm_grows_in_both_widths():
    old, new = nn.LSTM(3, 4, proj_size=2), nn.LSTM(3, 6, proj_size=3)

    rows, columns = blocks(old, new, "weight_hh_l0")
    outputs, inputs = blocks(old, new, "weight_hr_l0")

    assert rows == [0, 1, 2, 3, None, None, 4, 5, 6, 7, None, None, 8, 9, 10, 11, None, None, 12, 13, 14, 15]
    assert columns == outputs == [0, 1]
    assert inputs == [0, 1, 2, 3]


def test_a_stack_of_convolutions_grows_with_its_statistics():
    def stack(channels):
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, groups=channels),
            nn.ConvTranspose2d(channels, 2, 2),
        )

    old, new = stack(2), stack(3)
    old[1].num_batches_tracked.fill_(7)
    nn.init.constant_(old[1].running_mean, 5.0)

    transfer = plan_transfer(old, new, INIT)
    transfer.apply(old.state_dict(), new)

    assert transfer.entries["0.weight"].blocks[0] == ((0, 0, 2),)
    assert torch.equal(new[2].weight[:2], old[2].weight)
    assert torch.equal(new[3].weight[:2], old[3].weight)
    assert new[1].running_mean.tolist() == [5, 5, 0]
    assert int(new[1].num_batches_tracked) == 7


def test_a_tied_embedding_with_more_tokens_is_one_parameter():
    def model(tokens):
        made = nn.Sequential(nn.Embedding(tokens, 3), nn.Linear(3, tokens, bias=False))
        made[1].weight = made[0].weight
        return made

    old, new = model(4), model(6)
    before = new[0].weight.detach().clone()

    transfer = plan_transfer(old, new, INIT)
    transfer.apply(old.state_dict(), new)

    assert list(transfer.entries) == ["0.weight"]
    assert transfer.counts == (12, 6, 0)
    assert torch.equal(new[1].weight[:4], old[0].weight)
    assert torch.equal(new[1].weight[4:], before[4:])


def test_a_vocabulary_that_grew_keeps_its_tokens():
    config = RecurrentConfig(d_model=4, embedding_width=4, layers=1)
    old, new = Recurrent(config, 7), Recurrent(config, 9)

    moved(old, new)

    assert torch.equal(new.embedding.weight[:7], old.embedding.weight)


# -- names ---------------------------------------------------------------------------------------------------------


def stack(*widths):
    return nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(width, width) for width in widths), "top": nn.Linear(2, 2)})


def sources(old, new, how):
    return {name: entry.source for name, entry in plan_transfer(old, new, how).entries.items() if "weight" in name}


def test_new_layers_come_above_old_ones():
    assert sources(stack(2, 2), stack(2, 2, 2), INIT) == {
        "layers.0.weight": "layers.0.weight",
        "layers.1.weight": "layers.1.weight",
        "layers.2.weight": None,
        "top.weight": "top.weight",
    }


def test_the_last_layer_stays_the_last_where_others_come_below_it():
    found = sources(stack(2, 2), stack(2, 2, 2, 2), Growth(insert="below_last"))

    assert [found[f"layers.{index}.weight"] for index in range(4)] == ["layers.0.weight", None, None, "layers.1.weight"]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"copy_from": "last"}, [0, 1, 1, 1]),
        ({"copy_from": "first"}, [0, 1, 0, 0]),
        ({"copy_from": "last", "insert": "below_last"}, [0, 0, 0, 1]),
    ],
)
def test_a_new_layer_may_be_a_copy(how, expected):
    transfer = plan_transfer(stack(2, 2), stack(2, 2, 2, 2), Growth(**how))

    found = [transfer.entries[f"layers.{index}.weight"] for index in range(4)]
    assert [entry.source for entry in found] == [f"layers.{index}.weight" for index in expected]
    assert sum(entry.is_duplicate for entry in found) == 2


def test_layers_of_torchs_lstm_are_a_stack():
    old, new = nn.LSTM(2, 2, num_layers=2), nn.LSTM(2, 2, num_layers=3)

    found = sources(old, new, Growth(insert="below_last", copy_from="last"))

    assert [found[f"weight_hh_l{index}"] for index in range(3)] == ["weight_hh_l0", "weight_hh_l0", "weight_hh_l1"]


def test_parameters_are_renamed_by_patterns():
    old = nn.ModuleDict({"old": stack(2, 2)})
    new = nn.ModuleDict({"new": nn.ModuleDict({"stack": stack(2), "bottom": nn.Linear(2, 2)})})
    rename = {"old.*.*.*": "new.stack.*.*.*", "old.layers.1.*": "new.bottom.*"}

    found = sources(old, new, Growth(rename=rename))

    assert found == {
        "new.stack.layers.0.weight": "old.layers.0.weight",
        "new.stack.top.weight": None,
        "new.bottom.weight": "old.layers.1.weight",
    }


def test_what_is_renamed_to_nothing_begins_anew():
    transfer = plan_transfer(stack(2, 2), stack(2, 2), Growth(rename={"layers.1.*": ""}))

    assert transfer.entries["layers.1.weight"].kind == "new"
    assert set(transfer.dropped) == {"layers.1.weight", "layers.1.bias"}


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(old, new, how=INIT):
    with pytest.raises(ConfigError) as caught:
        plan_transfer(old, new, how, where="model.d_model at epoch 3")
    assert all(problem.startswith("model.d_model at epoch 3: ") for problem in caught.value.problems)
    return str(caught.value)


def test_a_parameter_that_shrinks_is_named():
    assert "0.weight shrinks from 3 x 2 to 2 x 2: set growth.allow_shrink" in refused(
        nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 2))
    )


def test_layers_that_fare_alike_are_one_problem():
    says = refused(nn.ModuleDict({"deep": stack(2, 3, 3, 3)}), nn.ModuleDict({"deep": stack(2, 2, 2, 2)}))

    assert says.splitlines()[0].startswith("model.d_model at epoch 3: deep.layers.1.weight shrinks from 3 x 3 to 2 x 2")
    assert says.splitlines()[0].endswith("(and 2 more like it, in other layers)")


def test_a_parameter_may_shrink_to_its_corner():
    old, new = nn.Linear(3, 3), nn.Linear(2, 2)

    moved(old, new, Growth(allow_shrink=True))

    assert torch.equal(new.weight, old.weight[:2, :2])


def test_heads_that_are_cut_anew_are_refused_although_no_shape_changes():
    old, new = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 4)

    assert "in_proj_weight (24 x 8 -> 24 x 8) has parts that shrink" in refused(old, new)
    assert plan_transfer(old, new, Growth(heads="widen")).is_identity


def test_networks_without_a_name_in_common_are_refused():
    says = refused(nn.ModuleDict({"a": nn.Linear(1, 1)}), nn.ModuleDict({"b": nn.Linear(1, 1)}))

    assert "a.weight and b.weight are the first" in says


def test_another_number_of_dimensions_is_refused():
    assert "weight has 2 dimensions (2 x 2), but 1 in the old network (2)" in refused(Holder((2,)), Holder((2, 2)))


def test_a_growth_that_nobody_explains_is_refused_with_the_line_to_add():
    says = refused(Holder((3, 4)), Holder((5, 4)))

    assert "Holder does not say what its dimensions are made up of" in says
    assert 'def growth_parts(self): return {"weight": ((5,), (4,))}' in says


def test_what_nobody_explains_is_copied_where_nothing_grows():
    assert plan_transfer(Holder((3, 4)), Holder((3, 4)), INIT).is_identity


def test_parts_of_another_size_are_refused():
    assert "growth_parts of weight gives 4 in all for dimension 0, which has 3" in refused(
        Holder((3,), ((4,),)), Holder((3,), ((3,),))
    )


def test_a_declaration_of_no_parameter_is_refused():
    old = nn.Linear(2, 2)
    old.growth_parts = lambda: {"wieght": ((2,), (2,))}

    assert "growth_parts of Linear names 'wieght'" in refused(old, nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        ({"lauers.*": "layers.*"}, "'lauers.*' matches no parameter of the old network"),
        ({"layers.*": "layer.*"}, "'layer.*' is no parameter of the new network"),
        ({"layers.0.*": "*.*.*"}, "must have as many *"),
        ({"layers.0.*": "layers.1.*"}, "makes layers.1.weight of both layers.0.weight and layers.1.weight"),
    ],
)
def test_a_renaming_that_means_nothing_is_refused(rename, says):
    assert says in refused(stack(2, 2), stack(2, 2), Growth(rename=rename))


def test_groups_of_a_convolution_that_each_grow_are_refused():
    assert "in groups of which each changes" in refused(nn.Conv1d(4, 4, 3, groups=2), nn.Conv1d(8, 8, 3, groups=2))


def test_halves_that_nobody_declares_are_refused():
    def model(width):
        return nn.ModuleDict({"rnn": nn.LSTM(2, width, bidirectional=True), "top": nn.Linear(2 * width, 2)})

    says = refused(model(2), model(3))

    assert 'def growth_parts(self): return {"top.weight": (None, (3, 3))}' in says


def test_gates_of_other_cells_are_refused():
    old, new = nn.ModuleDict({"rnn": nn.GRU(2, 2)}), nn.ModuleDict({"rnn": nn.LSTM(2, 2)})

    assert (
        'rnn was a GRU and is a LSTM, whose gates are others: growth.rename must let it begin anew, by "rnn.*" = ""'
        in (refused(old, new))
    )


@pytest.mark.parametrize("new_weights", ["zeros_out", "net2net"])
def test_the_side_of_a_dimension_must_be_known_where_the_function_is_kept(new_weights):
    old, new = Holder((3, 4), ((3,), (4,))), Holder((3, 5), ((3,), (5,)))

    says = refused(old, new, Growth(new_weights=new_weights))

    assert "must know whether dimension 1 of weight is what its module gives or takes" in says


# -- transfers -----------------------------------------------------------------------------------------------------


def on_meta(make):
    with torch.device("meta"):
        return make()


def test_a_plan_of_shapes_alone_is_that_of_real_networks():
    small, large = decoder, lambda: decoder(layers=2, feedforward=9)
    old, new = small(), large()

    on_shapes = plan_transfer(on_meta(small), on_meta(large), INIT)

    assert on_shapes == plan_transfer(old, new, INIT)
    on_shapes.apply(old.state_dict(), new)
    assert torch.equal(new.layers[0].feedforward.outer.weight[:, :6], old.layers[0].feedforward.outer.weight)


def test_equal_structures_are_carried_over_whole():
    old, new = decoder(), decoder()

    transfer = plan_transfer(old, new, INIT)
    transfer.apply(old.state_dict(), new)

    assert transfer.is_identity
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize("new_weights", ["init", "zeros_out"])
def test_a_transfer_is_the_same_each_time(new_weights):
    old = decoder()
    found = []
    for _ in range(2):
        new = decoder(layers=3, feedforward=9)
        initialise(new, 5)
        moved(old, new, Growth(new_weights=new_weights))
        found.append(new.state_dict())

    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_report_counts_what_became_of_every_parameter():
    old, new = stack(2, 2), stack(2, 2, 3)
    del new["top"]

    transfer = plan_transfer(old, new, INIT, where="layers at epoch 2")

    assert transfer.counts == (12, 12, 6)
    assert json.loads(json.dumps(transfer.table()))[0]["kind"] == "copied"
    assert transfer.text() == [
        "layers at epoch 2: 12 parameters copied, 12 new, 6 dropped",
        "copied  layers.[0-1].weight  2 x 2  8 parameters",
        "copied  layers.[0-1].bias  2  4 parameters",
        "new     layers.2.weight  3 x 3  9 parameters",
        "new     layers.2.bias  3  3 parameters",
        "dropped top.weight  2 x 2  4 parameters",
        "dropped top.bias  2  2 parameters",
    ]


def test_a_report_shows_what_grew():
    text = plan_transfer(nn.Linear(2, 2), nn.Linear(3, 2), INIT).text()

    assert "grown   weight  2 x 2 -> 2 x 3  6 parameters, 4 of them old" in text


@pytest.mark.parametrize("kept", [torch.float64, torch.bfloat16])
def test_a_transfer_keeps_the_new_networks_dtype(kept):
    old, new = nn.Linear(2, 2), nn.Linear(3, 3).to(kept)

    moved(old, new)

    assert new.weight.dtype is kept
    assert torch.equal(new.weight[:2, :2], old.weight.to(kept))


@given(st.integers(1, 6), st.integers(0, 14))
@settings(max_examples=40, deadline=None)
def test_copies_of_units_go_round(size, more):
    before, now = takes(size), takes(size + more)
    how = Growth(new_weights="net2net")

    axis = paired(before, now, how).axis(before, now, how)

    assert axis.sources().tolist() == [place % size for place in range(size + more)]


def test_classes_are_never_copied():
    before, now = classes(3), classes(5)
    how = Growth(new_weights="net2net")

    assert paired(before, now, how).axis(before, now, how).sources().tolist() == [0, 1, 2, -1, -1]


def test_the_sides_of_a_declared_linear_are_those_of_a_linear():
    assert gives((2, 3)) == Dim(row_of([row_of([2, 3])]), "gives")
