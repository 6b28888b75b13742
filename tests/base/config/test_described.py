"""A key is described by the string under its field, wherever its class stands."""

import sys
import types

import pytest
from pydantic import create_model

from etude.base.config.described import strings_under_fields
from etude.base.config.section import Section


class Outer(Section):
    """What the class is, which describes no field."""

    depth: int = 1
    """How deep.

    In metres.
    """
    bare: int = 2

    class Inner(Section):
        depth: int = 3
        """Of the inner one."""


class Heir(Outer):
    bare: int = 4
    """Described here."""
    depth: int = 5


def made():
    class Local(Section):
        depth: int = 6
        """Of the local one."""

    return Local


def described(section):
    told = strings_under_fields(section)
    return {name: told[name] for name in section.model_fields if name in told}


def test_a_string_under_a_field_describes_it_without_its_indentation():
    assert described(Outer) == {"depth": "How deep.\n\nIn metres."}


def test_a_field_that_is_declared_anew_is_described_anew_or_not_at_all():
    assert described(Heir) == {"bare": "Described here."}


def test_classes_of_one_name_have_their_own_descriptions():
    assert described(Outer.Inner) == {"depth": "Of the inner one."}
    assert described(made()) == {"depth": "Of the local one."}


@pytest.mark.parametrize("module", ["gone", "without_text"])
def test_a_class_whose_text_is_not_to_be_had_has_no_descriptions(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "without_text", types.ModuleType("without_text"))

    computed = create_model("Computed", __base__=Section, __module__=module, depth=(int, 7))

    assert described(computed) == {}
