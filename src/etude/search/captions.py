"""Words with their times as text of other programs: SRT, WebVTT, CTM, Praat's TextGrid and JSON.

Times are rounded to milliseconds, which never puts an end before its start nor makes words overlap. Where a format has
no words of no length, such a one gets a millisecond. Control characters and line breaks in words are left out, and so
are words of which nothing is left.
"""

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from etude.search.words import Word

WIDTH, LONGEST = 42, 7.0
"""Characters and seconds of one caption, at most: what a reader follows."""
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that are not written: control, surrogates, ends of lines and paragraphs."""


def srt(words: Iterable[Word], *, width: int = WIDTH, longest: float = LONGEST) -> str:
    """Captions as SubRip has them: numbered, with a comma in times.

    A caption is one line of at most `width` characters and `longest` seconds; a word that alone is more is one.

    >>> print(srt([Word("well", 0.5, 0.9, 1.0), Word("said", 1.0, 3661.5, 1.0)], longest=3600.0))
    1
    00:00:00,500 --> 00:00:00,900
    well
    <BLANKLINE>
    2
    00:00:01,000 --> 01:01:01,500
    said
    <BLANKLINE>
    """
    cues = enumerate(_cues(_timed(words), width, longest), 1)
    return "\n".join(f"{number}\n{_span(cue, ',')}\n{cue.text}\n" for number, cue in cues)


def vtt(words: Iterable[Word], *, width: int = WIDTH, longest: float = LONGEST) -> str:
    """Captions as WebVTT (W3C) has them; cut as `srt` does.

    >>> print(vtt([Word("a", 0.5, 0.9, 1.0), Word("-->", 1.0, 1.5, 1.0)]))
    WEBVTT
    <BLANKLINE>
    00:00:00.500 --> 00:00:01.500
    a --&gt;
    <BLANKLINE>
    """
    cues = _cues(_timed(words), width, longest)
    return "\n".join(["WEBVTT\n", *(f"{_span(cue, '.')}\n{escape(cue.text)}\n" for cue in cues)])


def ctm(words: Iterable[Word], recording: str, channel: str = "1") -> str:
    r"""A line a word, as NIST's sclite reads it: recording, channel, start, duration, word and confidence.

    White space within names and words becomes an underscore. Raises ValueError for a recording or channel without a
    name, or with that of a comment.

    >>> ctm([Word("well", 0.5, 0.9, 0.75)], "talk 1")
    'talk_1 1 0.500 0.400 well 0.7500\n'
    """
    names = [_joined(recording), _joined(channel)]
    if not all(names) or names[0].startswith(";;"):
        raise ValueError(f'A CTM file cannot name the recording "{recording}", channel "{channel}".')
    head = " ".join(names)
    return "".join(
        f"{head} {_decimal(word.start)} {_decimal(word.end - word.start)} {_joined(word.text)} {_share(word)}\n"
        for word in _timed(words)
    )


def textgrid(words: Iterable[Word], duration: float, *, tier: str = "words") -> str:
    """A tier of intervals as Praat writes it in its long format: what is between words is intervals without text.

    It lasts `duration` seconds, or longer where words do.
    """
    timed = list(_timed(words))
    end = max([1, _milliseconds(duration), *(word.end for word in timed)])
    spans = list(_filled(timed, end))
    head = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {_decimal(end)}"]
    head += ["tiers? <exists>", "size = 1", "item []:", "    item [1]:", '        class = "IntervalTier"']
    head += [f"        name = {_quoted(tier)}", "        xmin = 0", f"        xmax = {_decimal(end)}"]
    head += [f"        intervals: size = {len(spans)}"]
    intervals = [_interval(number, span) for number, span in enumerate(spans, 1)]
    return "\n".join([*head, *intervals]) + "\n"


def as_json(words: Iterable[Word]) -> str:
    """A list of objects with `text`, `start`, `end` and `confidence`: null where that is no number."""
    found = [_facts(word) for word in words if _plain(word.text)]
    return json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _facts(word: Word) -> dict[str, str | float | None]:
    confidence = round(word.confidence, 4) if math.isfinite(word.confidence) else None
    times = {"start": _milliseconds(word.start) / 1000, "end": _milliseconds(word.end) / 1000}
    return {"text": _plain(word.text), **times, "confidence": confidence}


# -- what all have in common ---------------------------------------------------------------------------------------


class _Timed(NamedTuple):
    """Text from a millisecond up to another."""

    text: str
    start: int
    end: int
    confidence: float = math.nan


def _timed(words: Iterable[Word]) -> Iterator[_Timed]:
    """The words that can be written, each a millisecond long at least, none before the end of another."""
    before = 0
    for word in words:
        text = _plain(word.text)
        if text:
            start = max(before, _milliseconds(word.start))
            before = max(start + 1, _milliseconds(word.end))
            yield _Timed(text, start, before, word.confidence)


def _plain(text: str) -> str:
    """Text on one line, without characters that cannot be seen or written."""
    seen = (" " if character.isspace() else character for character in text if _is_written(character))
    return " ".join("".join(seen).split())


def _is_written(character: str) -> bool:
    return unicodedata.category(character) not in UNPRINTABLE


def _joined(text: str) -> str:
    return _plain(text).replace(" ", "_")


def _milliseconds(seconds: float) -> int:
    """The nearest one; not before the start of a recording."""
    return max(0, round(seconds * 1000))


def _decimal(milliseconds: int) -> str:
    """Seconds with three digits behind the point.

    >>> _decimal(61_005)
    '61.005'
    """
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"


# -- captions ------------------------------------------------------------------------------------------------------


def _cues(words: Iterable[_Timed], width: int, longest: float) -> Iterator[_Timed]:
    """Neighbouring words together, as many as are allowed."""
    cue: _Timed | None = None
    for word in words:
        longer = word if cue is None else _Timed(f"{cue.text} {word.text}", cue.start, word.end)
        if cue is not None and (len(longer.text) > width or longer.end - longer.start > longest * 1000):
            yield cue
            longer = word
        cue = longer
    if cue is not None:
        yield cue


def _span(cue: _Timed, point: str) -> str:
    return f"{_clock(cue.start, point)} --> {_clock(cue.end, point)}"


def _clock(milliseconds: int, point: str) -> str:
    """Hours, minutes, seconds and milliseconds.

    >>> _clock(360_061_001, ",")
    '100:01:01,001'
    """
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


# -- CTM and TextGrid ----------------------------------------------------------------------------------------------


def _share(word: _Timed) -> str:
    return f"{word.confidence:.4f}" if math.isfinite(word.confidence) else "NA"


def _filled(words: Sequence[_Timed], end: int) -> Iterator[_Timed]:
    """The words, and what is between them and at both ends."""
    before = 0
    for word in words:
        if word.start > before:
            yield _Timed("", before, word.start)
        yield word
        before = word.end
    if end > before:
        yield _Timed("", before, end)


def _interval(number: int, span: _Timed) -> str:
    times = f"            xmin = {_decimal(span.start)}\n            xmax = {_decimal(span.end)}"
    return f"        intervals [{number}]:\n{times}\n            text = {_quoted(span.text)}"


def _quoted(text: str) -> str:
    """Text in quotes, of which those inside are doubled."""
    doubled = _plain(text).replace('"', '""')
    return f'"{doubled}"'
