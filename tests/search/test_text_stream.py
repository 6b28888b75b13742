"""Laws of text that comes token by token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.tokens.config import BpeConfig, ByteConfig, WordConfig
from etude.data.tokens.training import train_tokenizer
from etude.search.text_stream import TextStream

LINES = ["naïve café 🎼 one two", "three  four, five", "Ünïcödé ☃ and 日本語"]
TOKENIZERS = {
    name: train_tokenizer(config, LINES)
    for name, config in {"byte": ByteConfig(), "bpe": BpeConfig(vocab_size=300), "word": WordConfig()}.items()
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("line", LINES)
def test_the_pieces_add_up_to_the_text(name, line):
    tokenizer = TOKENIZERS[name]
    stream = TextStream(tokenizer.decode, [2])

    pieces = [stream.add(token) for token in tokenizer.encode(line)]

    assert "".join(pieces) + stream.rest() == tokenizer.decode(tokenizer.encode(line))
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_continuation_is_what_stands_behind_the_prompt(name):
    tokenizer = TOKENIZERS[name]
    tokens = tokenizer.encode(LINES[0])
    stream = TextStream(tokenizer.decode, tokens[:-5])

    text = "".join(stream.add(token) for token in tokens[-5:]) + stream.rest()

    assert tokenizer.decode(tokens[:-5]) + text == tokenizer.decode(tokens)


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text, stops):
    stream, said = TextStream(lambda tokens: "".join(map(chr, tokens)), [], stops), ""

    for letter in text:
        said += stream.add(ord(letter))
        if stream.stopped:
            break
    said += stream.rest()

    found = [end for end in range(len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    seen = text[: min(found)] if found else text
    places = [seen.find(stop) for stop in stops if stop in seen]
    assert said == (seen[: min(places)] if places else text)
    assert stream.stopped == bool(found)
