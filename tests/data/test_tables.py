"""Tables: which line names the columns, and which cells are in quotes."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.base.errors import DataError
from etude.base.hashes import read_sealed
from etude.data.files.lines import Flaw, LineFile
from etude.data.files.parallel import BadSampleError, open_again, open_pairs
from etude.data.files.quotes import MOST, is_quoted
from etude.data.files.table_file import TableForm

PAIRS = [("red", "rosso"), ("blue", "blu")]


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def pairs_of(source):
    return [tuple(source[i]) for i in range(len(source))]


def rows(separator, *lines):
    return "".join(separator.join(line) + "\n" for line in lines)


HEADS = [
    "source\ttarget",
    "Source\tTarget",
    "SOURCE\tTARGET",
    '"source"\t"target"',
    "'Source'\t'target'",
    " source \ttarget",
]


@pytest.mark.parametrize("head", HEADS)
def test_names_are_found_in_any_case_and_in_quotes(head, tmp_path):
    heard = []

    source = open_pairs(written(tmp_path, "a.tsv", f"{head}\nred\trosso\nblue\tblu\n"), notice=heard.append)

    assert pairs_of(source) == PAIRS
    assert heard == []


@pytest.mark.parametrize("head", HEADS)
def test_a_direction_is_never_swapped(head, tmp_path):
    turned = "\t".join(reversed(head.split("\t")))

    source = open_pairs(written(tmp_path, "a.tsv", f"{turned}\nrosso\tred\nblu\tblue\n"))

    assert pairs_of(source) == PAIRS


def test_the_exact_name_goes_before_one_in_another_case(tmp_path):
    path = written(tmp_path, "a.tsv", "Source\tsource\ttarget\nx\tred\trosso\n")

    assert pairs_of(open_pairs(path)) == [("red", "rosso")]


def test_two_columns_of_one_name_in_other_cases_are_refused(tmp_path):
    with pytest.raises(DataError, match=r'a.tsv, line 1: two columns are called "source"'):
        open_pairs(written(tmp_path, "a.tsv", "Source\tSOURCE\ttarget\nx\tred\trosso\n"))


def test_names_of_ones_own_are_found_in_any_case(tmp_path):
    path = written(tmp_path, "a.tsv", "IT\tEn\nrosso\tred\nblu\tblue\n")

    assert pairs_of(open_pairs(path, source="en", target="it")) == PAIRS


@pytest.mark.parametrize(
    ("first", "known", "unknown"), [("source\tItalian", "source", "target"), ("English\tTARGET", "target", "source")]
)
def test_one_known_name_beside_an_unknown_one_is_refused_with_both(first, known, unknown, tmp_path):
    with pytest.raises(DataError) as caught:
        open_pairs(written(tmp_path, "a.tsv", f"{first}\nred\trosso\n"))

    said = str(caught.value)
    assert f'there is no column "{unknown}", beside "{known}"' in said
    assert all(f'"{name}"' in said for name in first.split("\t"))
    assert "data.header = false" in said


def test_a_line_of_names_that_others_use_is_no_pair(tmp_path):
    with pytest.raises(DataError, match=r'set data.source = "src" and data.target = "tgt", or data.header = false'):
        open_pairs(written(tmp_path, "a.tsv", "src\ttgt\nred\trosso\n"))


def test_header_false_makes_the_first_line_a_pair(tmp_path):
    heard = []
    path = written(tmp_path, "a.tsv", "source\ttarget\nred\trosso\n")

    source = open_pairs(path, form=TableForm(header=False), notice=heard.append)

    assert pairs_of(source) == [("source", "target"), ("red", "rosso")]
    assert source.location(0).endswith("a.tsv, line 1")
    assert heard == []


def test_header_true_wants_the_names_or_skips_them_for_columns_by_number(tmp_path):
    path = written(tmp_path, "a.tsv", "English\tItalian\nred\trosso\nblue\tblu\n")
    header = TableForm(header=True)

    with pytest.raises(DataError, match=r'there is no column "source"; the first line has "English", "Italian"'):
        open_pairs(path, form=header)
    assert pairs_of(open_pairs(path, source=1, target=2, form=header)) == PAIRS
    assert pairs_of(open_pairs(path, source="english", target="italian", form=header)) == PAIRS


def test_names_in_a_file_without_a_header_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"must be numbers of columns, counted from 1, but are en and target"):
        open_pairs(written(tmp_path, "a.tsv", "red\trosso\n"), source="en", form=TableForm(header=False))


def test_files_whose_columns_would_be_read_in_two_orders_are_refused(tmp_path):
    first = written(tmp_path, "a.tsv", "target\tsource\nrosso\tred\n")
    second = written(tmp_path, "b.tsv", "blu\tblue\n")

    with pytest.raises(DataError, match=r"data.train: the columns of .*a.tsv are named, .* but .*b.tsv names none"):
        open_pairs([first, second])


# -- quotes --------------------------------------------------------------------------------------------------------

TEXT = st.text(st.sampled_from('ab ",;\t\n'), min_size=1, max_size=8).map(lambda text: f"x{text}y")
DIALECTS = {
    "excel.csv": {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL, "lineterminator": "\r\n"},
    "calc.csv": {"delimiter": ",", "quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
    "europe.csv": {"delimiter": ";", "quoting": csv.QUOTE_MINIMAL, "lineterminator": "\r\n"},
    "excel.tsv": {"delimiter": "\t", "quoting": csv.QUOTE_MINIMAL, "lineterminator": "\r\n"},
    "calc.tsv": {"delimiter": "\t", "quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
}


def by_spreadsheet(name, pairs, head=("source", "target")):
    """What Python's own csv module writes."""
    out = io.StringIO(newline="")
    csv.writer(out, **DIALECTS[name]).writerows([head, *pairs])
    return out.getvalue()


@pytest.mark.parametrize("name", DIALECTS)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_what_a_spreadsheet_writes_is_read_as_it_was(name, pairs, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("tables"), name, by_spreadsheet(name, pairs))

    found = pairs_of(open_pairs(path, form=TableForm(quotes=True)))

    assert found == pairs


SENTENCES = [('He said "hi", twice', "Ha detto\nciao"), ("red", "rosso"), ("a\tb", "c; d, e"), ('"', 'x "y"')]


@pytest.mark.parametrize("name", DIALECTS)
def test_quotes_of_a_spreadsheet_are_found_and_said(name, tmp_path):
    heard = []

    source = open_pairs(written(tmp_path, name, by_spreadsheet(name, SENTENCES)), notice=heard.append)

    assert pairs_of(source) == SENTENCES
    assert any("has cells in quotes, as spreadsheets write them" in said for said in heard)
    assert [source.place(i)[1] for i in range(4)] == [2, 4, 5, 6]
    assert list(source.rows(1, 3)) == SENTENCES[1:3]
    assert pairs_of(open_again(source.recipe)) == SENTENCES


def test_other_columns_of_a_quoted_table_are_read_too(tmp_path):
    path = written(tmp_path, "a.csv", 'source,target,score\n"a\nb",c,1\nd,"e",2\n')

    assert list(open_pairs(path).column("Score", 0, 2)) == ["1", "2"]


PLAIN = [
    rows("\t", ("source", "target"), ('"Hello," he said.', '"Ciao," disse.'), ("red", "rosso")),
    rows("\t", ("source", "target"), ('"Hello."', '"Ciao."'), ("red", "rosso")),
    rows("\t", ("source", "target"), ('"Hello."', '"Ciao."'), ('"Bye."', '"Addio."')),
    rows("\t", ("source", "target"), ('"He said', "x"), ('y"', "z")),
    rows("\t", ("source", "target"), ('"He said', 'x"'), ("NA", "null")),
    rows("\t", ("source", "target"), ('a "" b', "x"), ('"c""d"', "y")),
    rows("\t", ("source", "target"), ('""quoted""', "x")),
    rows("\t", ("source", "target"), ("5'10\"", "x"), ('"', "y")),
]


@pytest.mark.parametrize("text", PLAIN)
def test_quotes_of_a_text_are_text(text, tmp_path):
    heard = []

    source = open_pairs(written(tmp_path, "a.tsv", text), notice=heard.append)

    assert pairs_of(source) == [tuple(line.split("\t")) for line in text.splitlines()[1:]]
    assert heard == []


@given(st.lists(st.sampled_from(["a;b", '"a;b', 'a";b', '"a"b;c', 'a;"b', '"a";"b"', '"']), min_size=1, max_size=8))
def test_a_stray_quote_never_swallows_a_line_that_is_not_part_of_a_cell(tmp_path_factory, lines):
    content = "".join(f"{line}\n" for line in ["source;target", *lines])
    source = open_pairs(written(tmp_path_factory.mktemp("stray"), "a.csv", content))
    begins = [source.place(i)[1] for i in range(len(source))] + [len(lines) + 2]

    for i, row in enumerate(source.rows(0, len(source))):
        several = begins[i + 1] - begins[i] > 1
        assert not several or "\n" in "".join(row) or row == Flaw("the line has 1 column, but 2 columns are needed")


def test_a_quote_that_is_never_closed_costs_its_own_line_alone(tmp_path):
    path = written(tmp_path, "a.csv", 'source,target\n"He said,x\nred,rosso\nblue,"blu"\n')
    source = open_pairs(path)

    with pytest.raises(
        BadSampleError, match=r"a.csv, line 2: a cell begins with a quote that is not closed .* data.quotes = false"
    ):
        source[0]
    assert [source[1], source[2]] == PAIRS
    assert pairs_of(open_pairs(path, form=TableForm(quotes=False)))[0] == ('"He said', "x")


def test_a_cell_of_too_many_lines_is_a_stray_quote(tmp_path):
    path = written(tmp_path, "a.csv", 'source,target\n"' + "a\n" * (2 * MOST) + '",b\n')

    assert isinstance(next(open_pairs(path).rows(0, 1)), Flaw)


def test_what_was_found_of_the_quotes_is_remembered_by_content(tmp_path, monkeypatch):
    path = written(tmp_path, "excel.tsv", by_spreadsheet("excel.tsv", SENTENCES))
    before = open_pairs(path, cache=tmp_path / "cache")
    monkeypatch.setattr("etude.data.files.table_file.is_quoted", lambda *_: pytest.fail("asked again"))

    assert pairs_of(open_pairs(path, cache=tmp_path / "cache")) == pairs_of(before) == SENTENCES
    (known,) = (tmp_path / "cache" / "quotes").iterdir()
    assert read_sealed(known) == {"quoted": True}


def test_quotes_are_part_of_what_a_table_is(tmp_path):
    path = written(tmp_path, "excel.tsv", by_spreadsheet("excel.tsv", SENTENCES))

    assert open_pairs(path).fingerprint() != open_pairs(path, form=TableForm(quotes=False)).fingerprint()
    assert not is_quoted(LineFile(written(tmp_path, "a.tsv", "a\tb\n")), "\t")
