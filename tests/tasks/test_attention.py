"""Laws of what a translation looks at, and of its picture."""

import xml.etree.ElementTree as ET

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import ConfigError, DataError
from etude.data.tokens.config import WordConfig
from etude.data.tokens.training import train_tokenizer
from etude.model.transformer import Transformer, TransformerConfig
from etude.tasks.attention import Attention, label
from etude.tasks.task_type import Predictor
from etude.tasks.translation.task import Translation, TranslationConfig, TranslationTask

LINES = ["one two three", "two", "three  one, two", "four one", "two two two four three", "one"]
SVG = "{http://www.w3.org/2000/svg}"


def small(model=None, **options):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(WordConfig(), LINES)
    config = TransformerConfig(d_model=16, heads=2, encoder_layers=1, decoder_layers=2, feedforward=16)
    model = model or Transformer(config, tokenizer.size, tokenizer.size)
    return TranslationTask(
        model, TranslationConfig(**options), source_tokenizer=tokenizer, target_tokenizer=tokenizer
    ), tokenizer


def attention(source=("a", "<eos>"), target=("b", "<eos>"), layers=1, weights=None):
    uniform = torch.full((layers, 2, len(target), len(source)), 1 / len(source))
    return Attention(tuple(source), tuple(target), uniform if weights is None else weights)


def drawn(one):
    root = ET.fromstring(one.svg())  # noqa: S314 - our own
    cells = [node for node in root.iter(f"{SVG}rect") if node.get("fill-opacity")]
    return [node.text for node in root.iter(f"{SVG}text")], cells


@pytest.mark.parametrize("line", [*LINES, "one two\n", "never seen"])
def test_tokens_are_those_of_the_line_and_of_its_best_translation(line):
    task, tokenizer = small()

    found = task.attention(line)

    best = next(task.predict([line]))[0]
    assert found.source == (*tokenizer.spell(tokenizer.encode(line.rstrip("\n"))), "<eos>")
    assert found.target == (*tokenizer.spell(best.tokens), "<eos>")
    assert tokenizer.decode(best.tokens) == best.text
    assert found.weights.shape == (2, 2, len(found.target), len(found.source))
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 2, len(found.target)))


def test_the_weights_are_those_of_the_model_given_the_tokens_and_training_goes_on():
    task, tokenizer = small()
    task.train()

    found = task.attention("one two three")

    assert task.training
    task.eval()
    best = next(task.predict(["one two three"]))[0]
    source = torch.tensor([[*tokenizer.encode("one two three"), 3]])
    with torch.no_grad():
        assert found.weights.equal(task.model.cross_attention(source, torch.tensor([[2, *best.tokens]]))[0])
    assert not found.weights.requires_grad


def test_another_translation_than_the_best_may_be_asked_about():
    task, tokenizer = small()
    other = next(task.predict(["one two"]))[-1]

    assert task.attention("one two", other).target == (*tokenizer.spell(other.tokens), "<eos>")


def test_an_empty_translation_still_ends():
    task, _ = small()

    found = task.attention("one", Translation("", -1.0, -1.0))

    assert found.target == ("<eos>",)
    assert found.weights.shape[2:] == (1, len(found.source))


@pytest.mark.parametrize("line", ["", "  ", "\n", "\u2003"])
def test_a_blank_text_has_none_and_that_is_said(line):
    with pytest.raises(DataError, match="The text is blank"):
        small()[0].attention(line)


def test_a_list_is_no_text():
    with pytest.raises(ConfigError, match="attention is of one text, a string, but was given a list"):
        small()[0].attention(["one"])


class Table(torch.nn.Module):
    """A model without attention."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(30, 30)


class Wide(Table):
    """A model that tells of attention in a wrong shape."""

    def cross_attention(self, source, decoder_input):
        return torch.ones(1, 1, 1, 2, source.size(1))


def test_a_model_without_attention_to_the_source_is_told_of_in_one_sentence():
    with pytest.raises(ConfigError, match=r"^Table does not tell how it attends to the source: .*cross_attention"):
        small(Table())[0].attention("one")


def test_a_model_of_ones_own_must_keep_to_the_shape():
    with pytest.raises(ConfigError, match=r"must give \[1, layers, heads, .* but gives \[1, 1, 1, 2, 3\]"):
        small(Wide())[0].attention("one two", Translation("", -1.0, -1.0, (4, 5)))


def test_a_task_without_tokenizers_is_told_of():
    task, _ = small()
    task.source_tokenizer = None

    with pytest.raises(ConfigError, match="attention needs the tokenizers"):
        task.attention("one")


def test_a_predictor_that_says_nothing_of_attention_has_none():
    class Plain(Predictor):
        pass

    with pytest.raises(ConfigError, match="no attention to a source"):
        Plain().attention("one")


def test_the_picture_has_a_heat_map_for_each_layer_with_every_token():
    told, cells = drawn(attention(("x", "y", "<eos>"), ("z", "<eos>"), layers=3))

    assert [text for text in told if text.startswith("layer ")] == ["layer 1", "layer 2", "layer 3"]
    assert [text for text in told if len(text) <= 5] == ["x", "y", "<eos>", "z", "<eos>"] * 3
    assert len(cells) == 3 * 2 * 3
    assert {cell.get("fill-opacity") for cell in cells} == {"0.33"}


def test_a_cell_stands_below_its_source_token_beside_its_target_token_as_dark_as_the_mean_of_heads():
    weights = torch.tensor([[[[0.0, 0.3, 0.7]], [[0.0, 0.1, 0.9]]]])

    _, cells = drawn(attention(("x", "y", "<eos>"), ("<eos>",), weights=weights))

    assert [cell.get("fill-opacity") for cell in cells] == ["0.20", "0.80"]
    assert float(cells[1].get("x")) - float(cells[0].get("x")) == 18
    assert cells[0].get("y") == cells[1].get("y")


def test_equal_attentions_give_equal_pictures():
    assert attention().svg() == attention().svg()


@settings(max_examples=40)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_any_token_can_be_drawn(source, target):
    told, _ = drawn(attention(source, target))

    labels = list(map(label, [*source, *target]))
    assert told[-len(labels) :] == labels
    assert all(text.isprintable() and " " not in text and len(text) <= 24 for text in labels)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("<b>&", "<b>&"),
        (" two", "▁two"),
        ("a\x00\x1b[31m\n\t", "a\\x00\\x1b[31m\\n\\t"),
        ("\u202e\ufffe", "\\u202e\\ufffe"),
        ("\ud800", "\\ud800"),
        ("x" * 24, "x" * 24),
        ("x" * 400, "x" * 23 + "…"),
    ],
)
def test_a_token_is_shown_so_that_it_can_be_read(token, expected):
    assert label(token) == expected
    assert drawn(attention((token,), ("y",)))[0][-2] == expected


def test_weights_that_are_no_numbers_are_left_white():
    told, cells = drawn(attention(weights=torch.full((1, 2, 2, 2), torch.nan)))

    assert told[-4:] == ["a", "<eos>", "b", "<eos>"]
    assert cells == []
