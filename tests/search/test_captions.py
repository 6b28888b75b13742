"""Laws of captions: what was written is read back by the grammar of each format."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.search.captions import as_json, ctm, srt, textgrid, vtt
from etude.search.words import Word

SAID = [Word("it", 0.4996, 0.62, 0.9), Word("is", 0.7, 0.9, 0.8), Word("so", 1.25, 1.5, 0.7)]
STAMP = r"(\d\d+):([0-5]\d):([0-5]\d)"


@st.composite
def said(draw):
    """Words with times that never decrease, and any text."""
    texts = draw(st.lists(st.text(st.characters(exclude_categories=()), max_size=8), max_size=12))
    steps = st.lists(st.floats(0, 3) | st.just(0.0), min_size=2 * len(texts), max_size=2 * len(texts))
    times, at = [], 0.0
    for step in draw(steps):
        at += step
        times.append(at)
    return [Word(text, times[2 * n], times[2 * n + 1], draw(st.floats(0, 1))) for n, text in enumerate(texts)]


def plain(found):
    return [text for word in found if (text := visible(word.text))]


def visible(text):
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "", text).split())


def read_cues(text, point):
    """Start and end in milliseconds, and the line."""
    line = re.compile(rf"(?:\d+\n)?{STAMP}{point}(\d\d\d) --> {STAMP}{point}(\d\d\d)\n(.+)\n")
    blocks = text.removeprefix("WEBVTT\n\n").split("\n\n") if text.removeprefix("WEBVTT\n").strip() else []
    found = [line.fullmatch(block.removesuffix("\n") + "\n") for block in blocks]
    return [(stamp(*match.groups()[:4]), stamp(*match.groups()[4:8]), match[9]) for match in found]


def stamp(*parts):
    hours, minutes, seconds, rest = map(int, parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def read_textgrid(text):
    """The tier's end, and its intervals, by Praat's rules for quotes."""
    number, quoted = r"(\d+(?:\.\d+)?)", r'"((?:[^"]|"")*)"'
    end = float(re.search(rf"^xmax = {number}$", text, re.MULTILINE)[1])
    size = int(re.search(r"intervals: size = (\d+)", text)[1])
    each = re.findall(rf"intervals \[(\d+)\]:\n +xmin = {number}\n +xmax = {number}\n +text = {quoted}\n", text)
    assert [int(one[0]) for one in each] == list(range(1, size + 1))
    return end, [(float(one[1]), float(one[2]), one[3].replace('""', '"')) for one in each]


def test_subrip_is_written_to_the_letter():
    assert srt(SAID, width=5) == ("1\n00:00:00,500 --> 00:00:00,900\nit is\n\n2\n00:00:01,250 --> 00:00:01,500\nso\n")


def test_webvtt_is_written_to_the_letter():
    assert vtt(SAID, width=5) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:00.900\nit is\n\n00:00:01.250 --> 00:00:01.500\nso\n"
    )


def test_ctm_is_written_to_the_letter():
    assert ctm(SAID, "talk", "A") == (
        "talk A 0.500 0.120 it 0.9000\ntalk A 0.700 0.200 is 0.8000\ntalk A 1.250 0.250 so 0.7000\n"
    )


def test_a_textgrid_is_written_as_praat_does():
    found = textgrid([Word('say "so"', 0.5, 0.75, 1.0)], 0.75, tier='the "words"')

    assert found == (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 0.750\ntiers? <exists>\nsize = 1\n'
        'item []:\n    item [1]:\n        class = "IntervalTier"\n        name = "the ""words"""\n        xmin = 0\n'
        "        xmax = 0.750\n        intervals: size = 2\n        intervals [1]:\n            xmin = 0.000\n"
        '            xmax = 0.500\n            text = ""\n        intervals [2]:\n            xmin = 0.500\n'
        '            xmax = 0.750\n            text = "say ""so"""\n'
    )


def test_json_holds_the_words_with_times_to_the_millisecond():
    found = json.loads(as_json([*SAID[:1], Word("nö", 1.0, 2.0, float("nan")), Word("\n", 2.0, 3.0, 1.0)]))

    assert found == [
        {"text": "it", "start": 0.5, "end": 0.62, "confidence": 0.9},
        {"text": "nö", "start": 1.0, "end": 2.0, "confidence": None},
    ]


@given(said())
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize(("write", "point"), [(srt, ","), (vtt, r"\.")])
def test_captions_hold_all_words_in_order_and_never_overlap(write, point, found):
    cues = read_cues(write(found), point)

    text = " ".join(line for _, _, line in cues)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") if write is vtt else text
    assert text == " ".join(plain(found))
    assert all(start < end for start, end, _ in cues)
    assert all(before[1] <= after[0] for before, after in pairwise(cues))


@given(said())
@settings(max_examples=60, deadline=None)
def test_a_textgrid_is_filled_from_its_begin_to_its_end(found):
    end, intervals = read_textgrid(textgrid(found, 5.0))

    assert [text for _, _, text in intervals if text] == plain(found)
    assert (intervals[0][0], intervals[-1][1]) == (0.0, end)
    assert end >= 5.0
    assert all(start < end for start, end, _ in intervals)
    assert all(before[1] == after[0] for before, after in pairwise(intervals))


@given(said())
@settings(max_examples=60, deadline=None)
def test_a_line_of_ctm_has_six_columns_and_the_next_begins_after_its_end(found):
    rows = [line.split(" ") for line in ctm(found, "a talk").splitlines()]

    assert [row[4].replace("_", " ") for row in rows] == [text.replace("_", " ") for text in plain(found)]
    assert all((len(row), row[:2]) == (6, ["a_talk", "1"]) for row in rows)
    times = [(int(row[2].replace(".", "")), int(row[3].replace(".", ""))) for row in rows]
    assert all(before[0] + before[1] <= after[0] for before, after in pairwise(times))


@pytest.mark.parametrize("write", [srt, vtt])
def test_captions_are_cut_at_words_by_width_and_by_time(write):
    many = [Word("word", 0.5 * n, 0.5 * n + 0.4, 1.0) for n in range(40)]
    slow = [Word("word", 3.0 * n, 3.0 * n + 2.5, 1.0) for n in range(9)]

    wide, long = read_cues(write(many, longest=60), "[.,]"), read_cues(write(slow), "[.,]")

    assert [len(line) for _, _, line in wide] == [39] * 5  # eight words and their spaces; nine are 44
    assert [end - start for start, end, _ in long] == [5500] * 4 + [2500]


def test_a_word_that_is_too_long_is_a_caption_of_its_own():
    found = [Word("a", 0.0, 1.0, 1.0), Word("b" * 60, 1.0, 9.0, 1.0), Word("c", 9.0, 9.5, 1.0)]

    assert [line for _, _, line in read_cues(srt(found), ",")] == ["a", "b" * 60, "c"]


def test_a_word_cannot_end_the_times_of_a_caption():
    found = vtt([Word("00:00 --> 01:00\n\n", 0.0, 1.0, 1.0), Word("<b>&", 1.0, 2.0, 1.0)])

    assert found.count("-->") == 1
    assert "00:00 --&gt; 01:00 &lt;b&gt;&amp;\n" in found


def test_no_words_are_an_empty_file_of_each_kind():
    assert (srt([]), vtt([]), ctm([], "talk"), as_json([])) == ("", "WEBVTT\n", "", "[]\n")
    assert read_textgrid(textgrid([], 2.5)) == (2.5, [(0.0, 2.5, "")])
    assert read_textgrid(textgrid([], 0.0)) == (0.001, [(0.0, 0.001, "")])


def test_a_confidence_that_is_not_known_is_said_to_be_so():
    assert ctm([Word("a", 0.0, 1.0, float("nan"))], "talk") == "talk 1 0.000 1.000 a NA\n"


@pytest.mark.parametrize("names", [("",), ("\n",), (";;talk",), ("talk", " ")])
def test_recordings_that_a_ctm_file_cannot_name_are_refused(names):
    with pytest.raises(ValueError, match="A CTM file cannot name"):
        ctm(SAID, *names)
