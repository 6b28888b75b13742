"""Prompts, answers and conversations as ids: on what the loss is."""

import pytest
from hf_folders import CHATML, MARKED, TEXTS, tokenizer

from etude.base.errors import ConfigError
from etude.data.files.lines import Flaw
from etude.tasks.hf.chat import Encoder

TALK = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": "a cat"},
    {"role": "user", "content": "the dog?"},
    {"role": "assistant", "content": "one dog ran"},
]
FORGETS = CHATML.replace("m['content']", "(m['content'] if loop.last else '...')")
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML


def counted(encoder, row):
    """The text on which the loss is, special tokens shown."""
    return encoder.tokenizer.decode([i for i, counts in zip(row.ids, row.counted, strict=True) if counts])


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["by prefixes", "marked by the template"])
def test_the_loss_is_on_what_the_assistant_says_and_its_end(template):
    encoder = Encoder(tokenizer(template), seq2seq=False)

    row = encoder.chat(TALK)

    assert counted(encoder, row) == "a cat<|im_end|>one dog ran<|im_end|>"
    assert encoder.tokenizer.decode(row.ids) == encoder.tokenizer.apply_chat_template(TALK, tokenize=False)
    assert row.bytes == len("a cat") + len("one dog ran")


def test_a_template_that_changes_what_it_has_said_is_refused():
    with pytest.raises(ConfigError, match="cannot be told which tokens are an answer"):
        Encoder(tokenizer(FORGETS), seq2seq=False).chat(TALK)


def test_a_template_that_ends_answers_by_a_line_counts_the_line():
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"  # noqa: E501
    encoder = Encoder(tokenizer(plain), seq2seq=False)

    assert counted(encoder, encoder.chat(TALK)).split("\n") == ["a cat", "one dog ran", ""]


def test_a_prompt_goes_through_the_template_with_what_the_system_says():
    words = tokenizer(CHATML)
    plain, ruled = Encoder(words, seq2seq=False), Encoder(words, seq2seq=False, system="be short")
    asked = "<|im_start|>user\nthe cat?<|im_end|>\n<|im_start|>assistant\n"

    assert words.decode(plain.prompt("the cat?")) == asked
    assert words.decode(ruled.prompt("the cat?")) == "<|im_start|>system\nbe short<|im_end|>\n" + asked
    assert ruled.answer("the cat?", "a cat").ids[: len(ruled.prompt("the cat?"))] == ruled.prompt("the cat?")


@pytest.mark.parametrize("options", [{"template": False}, {}], ids=["switched off", "not there"])
def test_without_a_template_the_answer_follows_the_prompt(options):
    encoder = Encoder(tokenizer(CHATML if options else None, begins=True), seq2seq=False, **options)

    row = encoder.answer("the cat ", "sat")

    assert encoder.tokenizer.decode(row.ids) == "<s>the cat sat</s>"
    assert counted(encoder, row) == "sat</s>"
    assert row.bytes == 3
    assert row.ids[: row.counted.index(True)] == encoder.prompt("the cat ")


def test_conversations_without_a_template_are_refused():
    for encoder in (Encoder(tokenizer(), seq2seq=False), Encoder(tokenizer(CHATML), seq2seq=True)):
        with pytest.raises(ConfigError, match="Conversations need a chat template, but"):
            encoder.chat(TALK)


def test_a_source_and_its_target_both_end():
    encoder = Encoder(tokenizer(ends=True), seq2seq=True)

    row = encoder.answer("the cat", "sat")

    assert [encoder.tokenizer.decode(ids) for ids in (row.source, row.ids)] == ["the cat</s>", "sat</s>"]
    assert all(row.counted)


BAD = {
    "not a list": ({"role": "user"}, "not a list"),
    "empty": ([], "the list is empty"),
    "no content": ([{"role": "user"}], "no role and content"),
    "a number": ([{"role": "user", "content": 3}], "no role and content"),
    "answers nothing": ([{"role": "assistant", "content": "a"}], "answers nothing"),
    "no answer": (TALK[:2], "no message of the assistant"),
    "a silent answer": ([*TALK[:2], {"role": "assistant", "content": " "}], "no message of the assistant"),
    "spells": ([{"role": "user", "content": "x<|im_end|>"}, TALK[2]], 'spells the special token "<|im_end|>"'),
    "refused": (TALK, "the chat template refuses it (no system here)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_conversation_is_a_flaw_with_its_reason(name):
    messages, reason = BAD[name]

    found = Encoder(tokenizer(STRICT), seq2seq=False).chat(messages)

    assert isinstance(found, Flaw)
    assert reason in found.reason


@pytest.mark.parametrize(("prompt", "answer", "name"), [("", "a", "prompt"), ("a", " \n", "answer")])
def test_an_empty_side_is_a_flaw(prompt, answer, name):
    assert Encoder(tokenizer(), seq2seq=False).answer(prompt, answer) == Flaw(f"the {name} is empty")


def test_a_sample_beyond_the_models_positions_is_a_flaw():
    found = Encoder(tokenizer(), seq2seq=False, longest=4).answer("the cat sat on", "a mat and the dog")

    assert isinstance(found, Flaw)
    assert "more than 4" in found.reason


def test_a_prompt_that_spells_a_special_token_is_refused_in_a_template_and_split_without():
    with pytest.raises(ConfigError, match="spells the special token"):
        Encoder(tokenizer(CHATML), seq2seq=False).prompt("<|im_end|>")

    assert 2 not in Encoder(tokenizer(), seq2seq=False).prompt("the </s> cat")


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("length", [1, 4, 7, 1000])
def test_the_pieces_of_a_text_predict_each_of_its_ids_once(begins, length):
    encoder = Encoder(tokenizer(begins=begins), seq2seq=False)
    text = "".join(TEXTS) + "\N{SNOWMAN}ü"
    ids = [*encoder.tokenizer(text)["input_ids"], 2]

    rows = list(encoder.text(text, length))

    predicted = [i for row in rows for i, counts in zip(row.ids, row.counted, strict=True) if counts]
    assert predicted == ids[1:]
    assert max(len(row.ids) for row in rows) <= length + 1
    first = 0 if begins else len(encoder.tokenizer.decode(ids[0]))
    assert sum(row.bytes for row in rows) == len(text.encode()) - first
