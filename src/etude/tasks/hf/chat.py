"""Texts, prompts with answers, and conversations as token ids, with what the loss counts of them.

A tokenizer is one of the `transformers` library, of the fast kind. Content can never spell a special token: where it
is tokenised alone it is split into ordinary ones, and in a chat template, where that cannot be told apart, the sample
is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple, TypeAlias, cast, final

from etude.base.errors import ConfigError
from etude.data.files.lines import Flaw, is_blank, shown
from etude.tasks.transformers_library import LibraryTokenizer

ASSISTANT = "assistant"
MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""How a template marks what the assistant writes, for `return_assistant_tokens_mask`."""


class Row(NamedTuple):
    """One sample as ids."""

    ids: list[int]
    """Of a causal model all that is read and predicted; of a sequence-to-sequence one the target."""
    counted: list[bool]
    """For each id whether the loss counts its prediction."""
    bytes: float
    """UTF-8 bytes of the text that the counted ids stand for."""
    source: list[int]
    """What a sequence-to-sequence model reads; empty for a causal one."""


Messages: TypeAlias = Sequence[Mapping[str, str]]
Span: TypeAlias = tuple[int, int]
"""Where something begins and ends in a text."""
"""A conversation: of each message the role and the content."""


@final
class Encoder:
    """Turns samples into rows for one model.

    `longest` is the most positions that the model has, None where it has no bound. With `template`, prompts go through
    the tokenizer's chat template where it has one, behind a message of the role "system" where `system` is given.
    """

    def __init__(
        self,
        tokenizer: LibraryTokenizer,
        *,
        seq2seq: bool,
        longest: int | None = None,
        template: bool = True,
        system: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self.seq2seq = seq2seq
        self.longest = longest
        self.system = system
        self.templated = template and not seq2seq and isinstance(tokenizer.chat_template, str)
        self._front = _front(tokenizer)
        added = [str(token) for token in tokenizer.added_tokens_encoder]
        self._specials = tuple(token for token in added if not token.isspace())

    def text(self, text: str, length: int) -> Iterator[Row]:
        """Rows of a document, its end included: one, or pieces of `length` ids where it is longer.

        Each piece begins with the last id of the one before, so that every id but the first is predicted once; the
        first is where the tokenizer begins a text with a special token.
        """
        plain = self._plain(text, offsets=True)
        ends = [0] * len(self._front) + [end for _, end in plain["offset_mapping"]] + [len(text)]
        ids = [*self._front, *plain["input_ids"], self.tokenizer.eos_token_id]
        for begin in range(0, len(ids) - 1, length):
            piece = ids[begin : begin + length + 1]
            spoken = text[ends[begin] : ends[begin + len(piece) - 1]]
            yield Row(piece, [False] + [True] * (len(piece) - 1), float(len(spoken.encode())), [])

    def answer(self, prompt: str, answer: str) -> Row | Flaw:
        """A prompt and its answer; the loss counts the answer and its end."""
        for name, text in (("prompt", prompt), ("answer", answer)):
            if is_blank(text):
                return Flaw(f"the {name} is empty")
        if self.templated:
            return self.chat([*self._asked(prompt), {"role": ASSISTANT, "content": answer}])
        size = float(len(answer.encode()))
        if self.seq2seq:
            target = self.tokenizer(text_target=answer, split_special_tokens=True, verbose=False)["input_ids"]
            ended = target if target[-1:] == [self.tokenizer.eos_token_id] else [*target, self.tokenizer.eos_token_id]
            return self._fitting(Row(ended, [True] * len(ended), size, self.prompt(prompt)))
        before = self.prompt(prompt)
        after = [*self._plain(answer)["input_ids"], self.tokenizer.eos_token_id]
        return self._fitting(Row(before + after, [False] * len(before) + [True] * len(after), size, []))

    def chat(self, messages: object) -> Row | Flaw:
        """A conversation; the loss counts what the assistant says, and the token that ends it.

        What that is the template says itself by `{% generation %}`. Of one that does not, the conversation up to each
        answer and the one behind it are rendered, and must each begin what follows. Raises ConfigError where they do
        not, or where there is no template.
        """
        if not self.templated:
            why = "a sequence-to-sequence model takes prompt and answer" if self.seq2seq else "the tokenizer has none"
            raise ConfigError(f"Conversations need a chat template, but {why}: give samples of prompt and answer.")
        flaw = self._flaw_of(messages)
        if flaw is not None:
            return flaw
        return self._conversed(cast("Messages", messages))

    def _conversed(self, messages: Messages) -> Row | Flaw:
        """A conversation that is sound, as the template renders it."""
        from jinja2 import TemplateError

        try:
            made = (
                self._marked(messages)
                if MARKED.search(str(self.tokenizer.chat_template))
                else self._by_prefixes(messages)
            )
        except TemplateError as error:
            return Flaw(f"the chat template refuses it ({shown(error)})")
        ids, counted = made
        if not any(counted[1:]):
            return Flaw("the chat template leaves nothing of the assistant's messages")
        spoken = sum(len(message["content"].encode()) for message in messages if message["role"] == ASSISTANT)
        return self._fitting(Row(ids, [False, *counted[1:]], float(spoken), []))

    def prompt(self, prompt: str) -> list[int]:
        """The ids behind which the model answers `prompt`. Raises ConfigError where it spells a special token."""
        if self.seq2seq:
            return list(self.tokenizer(prompt, split_special_tokens=True, verbose=False)["input_ids"])
        if not self.templated:
            return [*self._front, *self._plain(prompt)["input_ids"]]
        if special := self._spelled(prompt):
            raise ConfigError(f'A prompt spells the special token "{shown(special)}": leave it out.')
        text = self._rendered(self._asked(prompt), asks=True)
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def ends(self) -> set[int]:
        """The special tokens by which the chat template ends an answer."""
        if not self.templated:
            return set()
        match self.answer("a", "b"):
            case Row(ids, marks):
                last = [token for token, counted in zip(ids, marks, strict=True) if counted][-1:]
            case _:
                last = []
        return {token for token in last if self.tokenizer.convert_ids_to_tokens(token) in self._specials}

    def _asked(self, prompt: str) -> list[dict[str, str]]:
        before = [{"role": "system", "content": self.system}] if self.system else []
        return [*before, {"role": "user", "content": prompt}]

    def _plain(self, text: str, *, offsets: bool = False) -> Any:
        return self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=offsets,
            verbose=False,
        )

    def _fitting(self, row: Row) -> Row | Flaw:
        for name, ids in (("the source", row.source), ("the sample", row.ids)):
            if self.longest is not None and len(ids) > self.longest:
                return Flaw(f"{name} has {len(ids)} tokens, more than {self.longest}")
        return row

    def _flaw_of(self, messages: object) -> Flaw | None:
        """What is wrong with a conversation before any template has seen it."""
        match messages:
            case [_, *_]:
                flaw = next(filter(None, map(self._flaw_of_message, messages)), None)
            case _:
                flaw = Flaw("the messages are not a list, or the list is empty")
        return flaw or self._flaw_of_turns(cast("Messages", messages))

    def _flaw_of_message(self, message: object) -> Flaw | None:
        match message:
            case {"role": str(), "content": str() as content}:
                special = self._spelled(content)
                return Flaw(f'a message spells the special token "{shown(special)}"') if special else None
        return Flaw("a message has no role and content, both strings")

    @staticmethod
    def _flaw_of_turns(messages: Messages) -> Flaw | None:
        if messages[0]["role"] == ASSISTANT:
            return Flaw("the first message is the assistant's, which answers nothing")
        if not any(message["role"] == ASSISTANT and not is_blank(message["content"]) for message in messages):
            return Flaw("no message of the assistant says anything")
        return None

    def _spelled(self, content: str) -> str | None:
        return next((special for special in self._specials if special in content), None)

    def _rendered(self, messages: Messages, *, asks: bool = False) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))

    def _marked(self, messages: Messages) -> tuple[list[int], list[bool]]:
        made = self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return list(made["input_ids"]), [bool(mark) for mark in made["assistant_masks"]]

    def _by_prefixes(self, messages: Messages) -> tuple[list[int], list[bool]]:
        whole = self._rendered(messages)
        answers = [place for place, message in enumerate(messages) if message["role"] == ASSISTANT]
        spans = [self._span(whole, messages, place) for place in answers]
        ids, places = self._placed(whole, 0)
        begins = [begin for begin, _ in spans]
        if _is_cut(places, begins):
            # A token would stand in prompt and answer both: the prompt ends where the model will be asked.
            ids, places = self._placed_apart(whole, begins)
        return ids, [_is_within(place, spans) for place in places]

    def _placed_apart(self, whole: str, begins: Sequence[int]) -> tuple[list[int], list[Span]]:
        """The ids of a text whose tokens may not run across `begins`, and where each stands."""
        parts = [self._placed(whole[begin:end], begin) for begin, end in pairwise([0, *begins, len(whole)])]
        return list(chain.from_iterable(ids for ids, _ in parts)), list(chain.from_iterable(at for _, at in parts))

    def _span(self, whole: str, messages: Messages, place: int) -> Span:
        """Where an answer begins and ends in a rendered conversation. Raises ConfigError where that cannot be told."""
        asked = self._rendered(messages[:place], asks=True)
        answered = self._rendered(messages[: place + 1])
        if not (answered.startswith(asked) and whole.startswith(answered)):
            raise ConfigError(
                "The tokenizer's chat template does not render a conversation as the beginning of a longer one, so it "
                "cannot be told which tokens are an answer: mark them in the template by {% generation %}, or train on "
                "single turns."
            )
        return len(asked), self._end(answered)

    def _placed(self, text: str, begin: int) -> tuple[list[int], list[Span]]:
        """The ids of a text that is rendered, and where each stands, counted from `begin`."""
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return list(made["input_ids"]), [(first + begin, last + begin) for first, last in made["offset_mapping"]]

    def _end(self, answered: str) -> int:
        """Where an answer ends: at the special token that ends it, without the white space that may follow."""
        bare = answered.rstrip()
        return len(bare) if bare.endswith(self._specials) else len(answered)


def _is_cut(places: Sequence[Span], begins: Sequence[int]) -> bool:
    """Whether a token stands on both sides of one of `begins`."""
    return any(first < begin < last for first, last in places for begin in begins)


def _is_within(place: Span, spans: Sequence[Span]) -> bool:
    """Whether a token, which is not empty, stands in one of the spans."""
    first, last = place
    return any(begin <= first < last <= end for begin, end in spans)


def _front(tokenizer: LibraryTokenizer) -> list[int]:
    """The special ids that the tokenizer puts in front of a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    places = range(len(whole) - len(plain) + 1)
    return next((list(whole[:at]) for at in places if whole[at : at + len(plain)] == plain), [])
