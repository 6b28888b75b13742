"""Pieces of HTML: every text in them is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


def element(name: str, *content: str, **attributes: str) -> str:
    """An element; its content is HTML, the values of its attributes are text. `_` in a name stands for `-`."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{given}>{''.join(content)}</{name}>"


def text(name: str, said: object, **attributes: str) -> str:
    """An element that holds text."""
    return element(name, escape(str(said)), **attributes)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table of texts, which scrolls where it is too wide; the first cell of a row is its head."""
    lines = [element("tr", text("th", row[0], scope="row"), *(text("td", cell) for cell in row[1:])) for row in rows]
    return table_of(head, lines, caption)


def table_of(head: Sequence[str], lines: Sequence[str], caption: str, **attributes: str) -> str:
    """The same, of rows that are HTML already."""
    return element(
        "div",
        element(
            "table",
            text("caption", caption),
            element("thead", element("tr", *(text("th", cell, scope="col") for cell in head))),
            element("tbody", *lines),
            **attributes,
        ),
        class_="scrolls",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def section(title: str, *content: str, about: str = "") -> str:
    """A part of the page under a heading; nothing where it has no content."""
    inside = "".join(content)
    if not inside:
        return ""
    told = text("p", about, class_="about") if about else ""
    return element("section", text("h2", title), told, inside, aria_label=title)


def folded(summary: str, *content: str) -> str:
    """Something that is opened to be seen."""
    return element("details", text("summary", summary), *content)
