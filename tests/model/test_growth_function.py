"""Networks that grow and compute what they did: by copies of units, units without effect, layers that add nothing."""

import copy

import pytest
import torch
from torch import nn

from etude.base.errors import ConfigError
from etude.model.decoder import Decoder
from etude.model.decoder_config import DecoderConfig
from etude.model.frames.conformer import ConformerConfig
from etude.model.frames.encoders import build_encoder
from etude.model.growth import Growth, plan_transfer
from etude.model.layers.growing import classes, takes
from etude.model.recurrent import Recurrent, RecurrentConfig
from etude.model.transformer import Transformer, TransformerConfig

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
    return model.eval()


def same(old, new, how, *inputs, tolerance=1e-5):
    """Whether the grown network computes what the old one does, and differs from it where it may."""
    old, new = trained(old).double(), trained(new).double()
    inputs = [value.double() if value.is_floating_point() else value for value in inputs]
    transfer = plan_transfer(old, new, how)
    transfer.apply(old.state_dict(), new)

    assert not transfer.is_identity
    torch.testing.assert_close(_first(new(*inputs)), _first(old(*inputs)), rtol=tolerance, atol=tolerance)


def _first(value):
    return value[0] if isinstance(value, tuple) else value


def tokens(rows=3, length=9, most=11):
    return torch.randint(1, most, (rows, length), generator=torch.Generator().manual_seed(5))


def decoder(**options):
    sizes = {"d_model": 16, "heads": 2, "layers": 2, "feedforward": 12, "max_positions": 16}
    return Decoder(DecoderConfig(**sizes | options), 11)


def transformer(**options):
    sizes = {"d_model": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "feedforward": 12}
    return Transformer(TransformerConfig(**sizes | options), 11, 11)


def conformer(**options):
    sizes = {"d_model": 16, "heads": 2, "layers": 2, "feedforward": 12, "kernel": 3, "subsampling": 4}
    return build_encoder(ConformerConfig(**sizes | {"subsample_channels": 4} | options), 8)


FRAMES = (torch.randn(2, 21, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([21, 13]))

# -- depth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [ZEROS, NET2NET, Growth(new_weights="zeros_out", insert="below_last", copy_from="last")]
)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_deeper_decoder_computes_the_same(how, norm):
    same(decoder(norm=norm, bias=True), decoder(norm=norm, bias=True, layers=5), how, tokens())


@pytest.mark.parametrize("how", [ZEROS, NET2NET, Growth(new_weights="zeros_out", copy_from="last")])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_deeper_transformer_computes_the_same(how, norm):
    old, new = transformer(norm=norm), transformer(norm=norm, encoder_layers=3, decoder_layers=4)

    same(old, new, how, tokens(), tokens(length=5))


@pytest.mark.parametrize("how", [ZEROS, NET2NET, Growth(new_weights="zeros_out", insert="below_last")])
def test_a_deeper_conformer_computes_the_same(how):
    same(conformer(), conformer(layers=4), how, *FRAMES, tolerance=3e-5)


@pytest.mark.parametrize("first", [True, False])
def test_a_deeper_encoder_of_torchs_computes_the_same(first):
    def encoder(layers):
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=first)
        return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    same(encoder(1), encoder(3), ZEROS, torch.randn(2, 5, 8))


@BOTH
def test_a_first_layer_of_a_stack_computes_the_same(how):
    old, new = transformer(encoder_layers=0), transformer(encoder_layers=2)

    same(old, new, how, tokens(), tokens(length=5))


def test_a_layer_that_is_not_residual_cannot_do_nothing():
    old, new = (nn.Sequential(*[nn.Linear(2, 2) for _ in range(depth)]) for depth in (1, 2))

    with pytest.raises(ConfigError, match=r"would change the function: 1\.weight is new, and is in no residual layer"):
        plan_transfer(old, new, NET2NET)


# -- width ---------------------------------------------------------------------------------------------------------


class Mlp(nn.Module):
    def __init__(self, width, outputs=3):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, width), nn.Linear(width, outputs)
        self.outputs = outputs

    def growth_parts(self):
        return {"outer.weight": (classes(self.outputs), None), "outer.bias": (classes(self.outputs),)}

    def forward(self, value):
        return self.outer(self.inner(value).relu())


@BOTH
@pytest.mark.parametrize("width", [6, 8, 17])
def test_a_wider_mlp_computes_the_same(how, width):
    same(Mlp(5), Mlp(width), how, torch.randn(7, 4))


def test_new_classes_leave_the_old_ones_as_they_are():
    old, new = trained(Mlp(5)), trained(Mlp(8, outputs=5))
    fresh = new.outer.bias[3:].clone()
    value = torch.randn(7, 4)

    plan_transfer(old, new, NET2NET).apply(old.state_dict(), new)

    torch.testing.assert_close(new(value)[:, :3], old(value))
    assert torch.equal(new.outer.bias[3:], fresh)


def test_classes_that_are_not_declared_are_refused():
    old, new = (nn.Sequential(nn.Linear(2, 4), nn.Linear(4, count)) for count in (3, 5))

    with pytest.raises(
        ConfigError, match=r"1.weight gives 5 instead of 3, which nothing in the network takes: .*classes"
    ):
        plan_transfer(old, new, NET2NET)


@BOTH
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_wider_recurrent_network_computes_the_same(how, kind):
    def model(width):
        return Recurrent(RecurrentConfig(type=kind, d_model=width, embedding_width=5, tie_output=False), 11)

    same(model(6), model(11), how, tokens())


class Tagger(nn.Module):
    """Both directions of torch's LSTM, and a layer over them."""

    def __init__(self, width):
        super().__init__()
        self.rnn = nn.LSTM(4, width, num_layers=2, bidirectional=True, batch_first=True)
        self.output = nn.Linear(2 * width, 3)

    def growth_parts(self):
        width = self.rnn.hidden_size
        return {"output.weight": (None, takes(width, width))}

    def forward(self, value):
        return self.output(self.rnn(value)[0])


@BOTH
def test_a_wider_lstm_of_both_directions_computes_the_same(how):
    same(Tagger(3), Tagger(5), how, torch.randn(2, 6, 4))


@BOTH
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_wider_feed_forward_layers_compute_the_same(how, activation):
    old, new = (transformer(feedforward=inner, activation=activation) for inner in (12, 19))

    same(old, new, how, tokens(), tokens(length=5))


@pytest.mark.parametrize("options", [{"positions": "rotary"}, {"positions": "learned", "normalisation": "layer"}])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_a_decoder_with_twice_the_heads_computes_the_same(options, kv_heads):
    sizes = {"bias": True, "tie_output": False, "qk_norm": True, **options}
    old, new = decoder(kv_heads=kv_heads, **sizes), decoder(kv_heads=2 * kv_heads, d_model=32, heads=4, **sizes)

    same(old, new, NET2NET, tokens())


def test_a_transformer_with_three_times_the_heads_computes_the_same():
    sizes = {"positions": "rotary", "tie_output": False, "share_embeddings": False}
    old, new = transformer(**sizes), transformer(d_model=48, heads=6, feedforward=30, **sizes)

    same(old, new, NET2NET, tokens(), tokens(length=5))


@pytest.mark.parametrize("options", [{"norm": "layer"}, {"norm": "group", "groups": 4}])
def test_a_conformer_with_a_wider_front_and_kernel_computes_the_same(options):
    old, new = conformer(**options), conformer(subsample_channels=7, kernel=7, feedforward=20, **options)

    same(old, new, NET2NET, *FRAMES)


def test_twice_the_heads_of_torchs_attention_compute_the_same():
    class Attending(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner, self.outer = nn.Linear(3, width), nn.Linear(width, 2)
            self.layer = nn.TransformerEncoderLayer(width, width // 4, 3 * width, batch_first=True)

        def forward(self, value):
            return self.outer(self.layer(self.inner(value)))

    same(Attending(8), Attending(16), NET2NET, torch.randn(2, 5, 3))


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"tie_output": True}, {"d_model": 32, "heads": 4}, "embedding and output layer at once"),
        ({"positions": "sinusoidal"}, {"d_model": 32, "heads": 4}, "sinusoids of positions depend on the width"),
        ({}, {"d_model": 24, "heads": 3}, "a norm over 16 keeps its values only over twice"),
        ({}, {"d_model": 32}, "attention scales its scores by the width of a head"),
        ({"bias": True}, {"bias": False}, "attention.projection.bias has no place"),
    ],
)
def test_growth_that_would_change_the_function_is_refused(before, after, why):
    sizes = {"tie_output": False, "positions": "rotary"} | before

    with pytest.raises(ConfigError, match=why):
        plan_transfer(decoder(**sizes), decoder(**sizes | after), NET2NET)


@pytest.mark.parametrize("make", [nn.LayerNorm, lambda width: nn.GroupNorm(2, width)])
def test_norms_of_other_units_are_refused(make):
    def model(width):
        return nn.Sequential(nn.Linear(3, width), make(width), nn.Linear(width, 3))

    with pytest.raises(ConfigError, match=r"1\.weight cannot have copies in dimension 0"):
        plan_transfer(model(4), model(6), NET2NET)


@pytest.mark.parametrize("groups", [(1, 2), (2, 4)])
def test_norms_of_groups_of_copies_compute_the_same(groups):
    def model(width, count):
        return nn.Sequential(nn.Linear(3, width), nn.GroupNorm(count, width), nn.ReLU(), nn.Linear(width, 3))

    same(model(4, groups[0]), model(8, groups[1]), NET2NET, torch.randn(5, 3))


@BOTH
def test_wider_convolutions_compute_the_same(how):
    def model(channels, kernel):
        return nn.Sequential(
            nn.Conv1d(2, channels, kernel, padding=kernel // 2),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, groups=channels),
            nn.ConvTranspose1d(channels, 2, kernel, padding=kernel // 2, stride=2),
        )

    same(model(3, 3), model(7, 5), how, torch.randn(2, 2, 9))


def test_copies_are_no_longer_copies_once_they_are_trained_with_noise():
    """Two of the same are told apart by what else they see: here by dropout."""
    old, new = Mlp(5), Mlp(10)
    plan_transfer(old, new, NET2NET).apply(old.state_dict(), new)
    before = copy.deepcopy(new.inner.weight.detach())
    value = torch.randn(7, 4)

    hidden = nn.functional.dropout(new.inner(value).relu(), 0.5)
    new.outer(hidden).square().sum().backward()

    assert torch.equal(before[:5], before[5:])
    assert not torch.equal(new.inner.weight.grad[:5], new.inner.weight.grad[5:])


def test_an_embedding_that_is_the_output_layer_cannot_grow_wider():
    def model(width):
        made = nn.Sequential(nn.Embedding(5, width), nn.Linear(width, 5, bias=False))
        made[1].weight = made[0].weight
        return made

    with pytest.raises(ConfigError, match=r"0\.weight cannot have copies in dimension 1: it is embedding and output"):
        plan_transfer(model(3), model(6), NET2NET)
