"""What a key means, from the marks of the fields that lead to it."""

from typing import Annotated, Literal

import pytest

from etude.base.config.components import Imported, component
from etude.base.config.meaning import Meaning, meaning_of, means
from etude.base.config.section import Section


class Adam(Section):
    eps: float = 1e-8
    amsgrad: Annotated[bool, means(shared="never", why="its state does not fit")] = False


class Words(Section):
    val: Annotated[str, means("validation", shared="always", governs=("stopping",))] = ""
    rows: int = 1


class Root(Section):
    words: Annotated[Words, means(shared="epoch", governs=("weights",))] = Words()
    log: Annotated[Words, means("none")] = Words()
    optimizer: Annotated[
        Adam | Imported,
        component({"adam": Adam}, "adam"),
        means(governs=("optimizer",), of_type=means(shared="never", why="it is another")),
    ] = Adam()
    terms: dict[str, Words] = {}  # noqa: RUF012 - pydantic copies it
    parts: tuple[Words, ...] = ()
    plain: int | Literal["auto"] = "auto"


def test_a_key_that_nothing_is_said_of_is_of_the_result():
    assert meaning_of(Root, "plain") == meaning_of(Root, "nowhere.at.all") == Meaning()
    assert not Meaning().resumable


def test_a_mark_holds_below_it_until_another_says_otherwise():
    assert meaning_of(Root, "words.rows").shared == "epoch"
    assert meaning_of(Root, "words.val").shared == "always"
    assert meaning_of(Root, "words.val.source.deep").identity == "validation"


def test_what_a_key_governs_adds_up():
    assert meaning_of(Root, "words.val").governs == {"weights", "stopping"}


@pytest.mark.parametrize("key", ["log", "log.rows", "log.no_such_key"])
def test_what_changes_no_number_may_change_when_a_run_is_resumed(key):
    assert meaning_of(Root, key).resumable


def test_what_only_judges_may_not_unless_it_says_so():
    assert not meaning_of(Root, "words.val").resumable
    assert means("validation", resumable=True).resumable


def test_the_type_of_a_component_has_a_mark_of_its_own():
    assert meaning_of(Root, "optimizer.type").why == "it is another"
    assert meaning_of(Root, "optimizer.eps") == meaning_of(Root, "optimizer.my_own")
    assert meaning_of(Root, "optimizer.amsgrad").why == "its state does not fit"


@pytest.mark.parametrize("key", ["terms.NAME.val", "parts[0].val", 'terms."a.b".val', "parts.val"])
def test_names_in_tables_and_places_in_lists_lead_to_their_fields(key):
    assert meaning_of(Root, key).identity == "validation"


def test_a_name_with_a_quote_in_it_is_a_key_too():
    assert meaning_of(Root, 'log."a"b"').identity == "none"


def test_the_json_schema_shows_what_is_said():
    properties = Root.model_json_schema()["properties"]

    assert properties["log"]["identity"] == "none"
    assert properties["words"]["shared"] == "epoch"
    assert "identity" not in properties["plain"]
