"""What Etude's own networks say of their parameters: grown by it in any size, they compute what they did."""

import pytest
import torch
from torch import nn

from etude.base.errors import ConfigError
from etude.model.classifier import TextClassifier
from etude.model.encoder import EmbeddingConfig, EncoderConfig
from etude.model.frames.blstm import BlstmConfig
from etude.model.frames.classifier import FrameClassifier
from etude.model.frames.cnn import CnnConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.encoders import build_encoder
from etude.model.frames.mlp import MlpConfig
from etude.model.frames.transducer import TransducerConfig, TransducerHead
from etude.model.growth import Growth, plan_transfer
from etude.model.growth.declared import Declarations, stored_in
from etude.model.recurrent_encoder import RecurrentEncoderConfig
from etude.model.tabular import TabularConfig, TabularNet

NET2NET, ZEROS = Growth(new_weights="net2net"), Growth(new_weights="zeros_out")
BOTH = pytest.mark.parametrize("how", [NET2NET, ZEROS])


@pytest.fixture(autouse=True)
def seeded():
    """Initial values are the same in every run."""
    torch.manual_seed(11)


def trained(model):
    """The model with no parameter as it was initialised."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.eval().double()


def carried(old, new, how):
    old, new = trained(old), trained(new)
    plan_transfer(old, new, how).apply(old.state_dict(), new)
    return old, new


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


LENGTHS = torch.tensor([21, 13])


def frames(features=6):
    return normal(2, 21, features)


def outputs(value):
    return value[0] if isinstance(value, tuple) else value


def same(old, new, how, *inputs, classes=None):
    old, new = carried(old, new, how)
    torch.testing.assert_close(outputs(new(*inputs))[..., :classes], outputs(old(*inputs)), rtol=1e-6, atol=1e-6)


# -- frames --------------------------------------------------------------------------------------------------------


def classifier(config, pooling="attention", features=6, outputs=3):
    return FrameClassifier(build_encoder(config, features), outputs, pooling)


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("options", [{}, {"projection": 4}, {"bidirectional": False}])
def test_a_blstm_grows_in_both_directions(how, pooling, options):
    def model(width, channels):
        sizes = {"layers": 2, "d_model": width, "subsample_channels": channels, "subsampling": 2}
        return classifier(BlstmConfig(**sizes | options), pooling)

    same(model(4, 3), model(7, 5), how, frames(), LENGTHS)


def test_a_blstm_that_becomes_one_keeps_its_way_forwards():
    def model(*, bidirectional):
        return classifier(BlstmConfig(layers=2, d_model=4, bidirectional=bidirectional, subsampling=1))

    same(model(bidirectional=False), model(bidirectional=True), ZEROS, frames(), LENGTHS)


@BOTH
def test_stacked_frames_grow_by_features(how):
    def model(features):
        return classifier(BlstmConfig(d_model=4, subsample="stack", subsampling=4, layers=1), features=features)

    old, new = carried(model(6), model(9), how)

    more = torch.cat((frames(), normal(2, 21, 3)), -1)
    torch.testing.assert_close(new(more, LENGTHS), old(frames(), LENGTHS))


@BOTH
def test_an_mlp_takes_more_features_without_seeing_them(how):
    def model(features, *widths):
        return classifier(MlpConfig(widths=widths), "mean", features)

    old, new = carried(model(6, 5, 4), model(9, 8, 6), how)

    more = torch.cat((frames(), normal(2, 21, 3)), -1)
    torch.testing.assert_close(new(more, LENGTHS), old(frames(), LENGTHS))


def test_more_bins_of_each_channel_lie_behind_its_old_ones():
    def model(features):
        return build_encoder(
            ConformerConfig(d_model=4, heads=2, layers=1, subsampling=2, subsample_channels=3), features
        )

    transfer = plan_transfer(model(6), model(9), Growth())

    blocks = transfer.entries["front.output.weight"].blocks
    assert blocks == (((0, 0, 4),), ((0, 0, 3), (3, 5, 3), (6, 10, 3)))


@BOTH
def test_a_cnn_grows_inside_its_blocks(how):
    def model(expansion, channels, kernel):
        config = CnnConfig(d_model=4, layers=2, expansion=expansion, subsample_channels=channels, kernel=kernel)
        return classifier(config)

    same(model(2, 3, 3), model(3, 4, 5), how, frames(), LENGTHS)


def test_a_cnn_of_twice_the_width_computes_the_same():
    def model(width):
        return classifier(CnnConfig(d_model=width, layers=2, subsample_channels=3), "mean")

    same(model(4), model(8), NET2NET, frames(), LENGTHS)


def test_a_deeper_cnn_computes_the_same():
    def model(layers):
        return classifier(CnnConfig(d_model=4, layers=layers, subsample_channels=3))

    same(model(2), model(4), ZEROS, frames(), LENGTHS)


def test_relative_positions_depend_on_the_width():
    def model(width, heads):
        return build_encoder(ConformerConfig(d_model=width, heads=heads, layers=1), 6)

    with pytest.raises(ConfigError, match=r"attention\.relation\.weight cannot have copies .* sinusoids of positions"):
        plan_transfer(model(4, 2), model(8, 4), NET2NET)


@BOTH
@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
def test_a_transducer_grows_in_all_its_widths(how, predictor):
    def model(width, joint):
        return TransducerHead(TransducerConfig(predictor=predictor, d_model=width, joint=joint, layers=2), 4, 7)

    same(model(5, 6), model(8, 11), how, normal(2, 6, 4), torch.randint(1, 7, (2, 3)))


@BOTH
def test_a_transducer_learns_more_labels(how):
    def model(labels):
        return TransducerHead(TransducerConfig(d_model=5, joint=6), 4, labels)

    same(model(7), model(9), how, normal(2, 6, 4), torch.randint(1, 7, (2, 3)), classes=7)


@BOTH
def test_a_transducer_that_looks_further_back_keeps_the_last_labels(how):
    def model(context):
        return TransducerHead(TransducerConfig(d_model=5, joint=6, context=context), 4, 7)

    same(model(2), model(4), how, normal(2, 6, 4), torch.randint(1, 7, (2, 3)))


# -- texts and tables ----------------------------------------------------------------------------------------------


def tokens():
    return torch.randint(0, 9, (3, 6), generator=torch.Generator().manual_seed(5))


@BOTH
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_recurrent_text_classifier_grows_in_both_directions(how, kind, bidirectional):
    def model(width):
        config = RecurrentEncoderConfig(type=kind, layers=2, d_model=width, bidirectional=bidirectional)
        return TextClassifier(config, 9, 3)

    same(model(6), model(12), how, tokens())


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_text_classifier_of_twice_the_heads_computes_the_same(positions):
    def model(width, heads):
        config = EncoderConfig(d_model=width, heads=heads, layers=2, feedforward=width, positions=positions)
        return TextClassifier(config, 9, 3)

    same(model(8, 2), model(16, 4), NET2NET, tokens())


def test_vectors_of_tokens_grow_wider_although_their_scale_does():
    old, new = (TextClassifier(EmbeddingConfig(d_model=width), 9, classes) for width, classes in ((4, 3), (7, 5)))

    same(old, new, NET2NET, tokens(), classes=3)


@BOTH
@pytest.mark.parametrize("hidden", [(5, 4), ()])
def test_a_tabular_network_grows_in_widths(how, hidden):
    def model(more, embedding):
        config = TabularConfig(hidden=[width + more for width in hidden], embedding_width=embedding, norm="none")
        return TabularNet(config, [True, False], [4, 6], 2)

    same(model(0, 2), model(3, 5), how, normal(5, 2), torch.randint(0, 4, (5, 2)))


def test_columns_of_a_table_stay_apart():
    def model(numbers, sizes):
        return TabularNet(TabularConfig(hidden=[2], embedding_width=3), [True] * numbers, sizes, 2)

    transfer = plan_transfer(model(2, [4]), model(3, [5, 5]), Growth())

    assert transfer.entries["hidden.0.linear.weight"].blocks[1] == ((0, 0, 2), (2, 3, 2), (4, 6, 3))


# -- every one -----------------------------------------------------------------------------------------------------


def unknown(model):
    """The parameters of which some dimension is not known."""
    declared = Declarations(model)
    return [one.name for one in stored_in(model) if any(dim is None or dim.side is None for dim in declared.dims(one))]


@pytest.mark.parametrize(
    "make",
    [
        lambda: classifier(BlstmConfig(d_model=4)),
        lambda: classifier(ConformerConfig(d_model=4, heads=2, layers=1, norm="group", groups=2)),
        lambda: classifier(CnnConfig(d_model=4)),
        lambda: classifier(MlpConfig(norm="layer")),
        lambda: TextClassifier(EncoderConfig(d_model=4, heads=2), 5, 2),
        lambda: TextClassifier(RecurrentEncoderConfig(d_model=4), 5, 2),
        lambda: TabularNet(TabularConfig(), [True], [5], 1),
        lambda: TransducerHead(TransducerConfig(), 4, 5),
        lambda: nn.TransformerDecoderLayer(4, 2, 8),
        lambda: nn.ModuleList([nn.Bilinear(2, 3, 4), nn.GRUCell(2, 3), nn.PReLU(4), nn.RNN(2, 3)]),
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
    ],
)
def test_every_parameter_says_what_it_gives_and_takes(make):
    assert unknown(make()) == []
