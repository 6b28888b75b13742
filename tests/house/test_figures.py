"""What the figures count, on small code whose figures are known."""

import ast
import textwrap

import pytest
from figures import File, arguments, circles, complexity, is_any, names_of_any


def function(code):
    return ast.parse(textwrap.dedent(code)).body[0]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): pass", 1),
        ("def f(a):\n    if a:\n        return 1\n    elif a is None:\n        return 2\n    return 3", 3),
        ("def f(a, b, c): return a and b or c", 3),
        ("def f(a): return [x for x in a if x if x > 1]", 4),
        (
            "def f(a):\n    try:\n        a()\n    except OSError:\n        pass\n    except ValueError:\n        pass",
            3,
        ),
        ("def f(a):\n    match a:\n        case 1: pass\n        case int(): pass\n        case _: pass", 3),
        ("def f(a):\n    for x in a:\n        pass\n    while a:\n        pass", 3),
        ("def f(a):\n    def g(b):\n        return b if b else a\n    return g", 2),
    ],
)
def test_complexity_counts_decisions(code, expected):
    assert complexity(function(code)) == expected


def test_any_is_found_inside_a_type_and_under_another_name():
    file = File("m", "from typing import Any, TypeAlias\nBatch: TypeAlias = Any\n")
    given = arguments(function("def f(self, a: Any, b: dict[str, Any], c: Batch, d: 'Any', e: int, *f: object): pass"))

    assert [is_any(one, names_of_any(file)) for one in given] == [True, True, True, True, False, False]


def test_circles_are_groups_that_import_each_other():
    texts = {
        "etude.a": "import etude.b",
        "etude.b": "def f():\n    from etude.c import x",
        "etude.c": "from etude import a",
        "etude.d": "import etude.a",
        "etude.e": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import etude.f",
        "etude.f": "import etude.e",
    }

    assert circles([File(module, text) for module, text in texts.items()]) == [["etude.a", "etude.b", "etude.c"]]
