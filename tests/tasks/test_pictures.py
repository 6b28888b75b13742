"""Laws of pictures: what is drawn is what was given, and no text can break the file."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.tasks.pictures import LEFT, RIGHT, TOP, WIDEST, WIDTH, Mark, png, spectrogram

Image = pytest.importorskip("PIL.Image")
SVG = "{http://www.w3.org/2000/svg}"


def features(frames=50, bins=20):
    return np.random.default_rng(0).normal(size=(frames, bins)).astype(np.float32)


def parsed(text):
    return ET.fromstring(text)  # noqa: S314 - our own


def pixels(picture):
    """The grey values of the PNG in a picture [F, T]."""
    image = parsed(picture).find(f"{SVG}image")
    content = base64.b64decode(image.get("href").removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(content)))


def texts(picture):
    return [element.text for element in parsed(picture).iter(f"{SVG}text")]


def boxes(picture):
    """Left and right end of each mark, as shares of the recording."""
    found = [one.find(f"{SVG}rect") for one in parsed(picture).iter(f"{SVG}g")]
    width = WIDTH - LEFT - RIGHT
    lefts = [float(one.get("x")) for one in found]
    return [
        ((left - LEFT) / width, (left + float(one.get("width")) - LEFT) / width)
        for left, one in zip(lefts, found, strict=True)
    ]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 300)])
def test_a_png_holds_the_pixels_it_was_given(shape):
    shades = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

    image = Image.open(io.BytesIO(png(shades)))

    image.verify()
    image = Image.open(io.BytesIO(png(shades)))
    assert (image.mode, image.size) == ("L", shape[::-1])
    assert (np.asarray(image) == shades).all()


def test_loud_is_dark_time_goes_right_and_low_bins_are_below():
    given = np.zeros((40, 30), dtype=np.float32)
    given[10:14, 0] = given[30:34, 28:] = 5.0

    found = pixels(spectrogram(given, 0.01, []))

    assert found.shape == (30, 40)
    dark = np.full((30, 40), 255)
    dark[29, 10:14] = dark[:2, 30:34] = 0
    assert (found == dark).all()


def test_what_is_no_number_is_white():
    given = features()
    given[3, 4], given[5, 6] = np.nan, -np.inf
    silent = np.full((4, 3), -np.inf)

    found = pixels(spectrogram(given, 0.01, []))

    assert (found[19 - 4, 3], found[19 - 6, 5]) == (255, 255)
    assert (pixels(spectrogram(silent, 0.01, [])) == 255).all()
    assert (pixels(spectrogram(np.full((4, 3), 2.0), 0.01, [])) == 255).all()


def test_marks_lie_where_their_seconds_are_and_within_the_recording():
    marks = [Mark("a", 0.1, 0.25), Mark("b", 0.4, 9.0), Mark("c", -1.0, 0.0), Mark("d", 0.3, 0.3)]

    found = boxes(spectrogram(features(), 0.01, marks))

    wanted = [(0.2, 0.5), (0.8, 1.0), (0.0, 0.0), (0.6, 0.6)]
    for box, want in zip(found, wanted, strict=True):
        assert box == pytest.approx(want, abs=2e-4)


def test_seconds_are_numbered_by_round_steps():
    told = [one for one in texts(spectrogram(features(135), 0.01, [])) if one and one.endswith(" s")]

    assert told == ["0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1 s", "1.2 s"]


def test_a_long_recording_is_narrowed_by_means():
    given = np.zeros((2 * WIDEST + 2, 2))
    given[1] = given[2 * WIDEST] = 3.0
    given[:, 1] = 3.0

    found = pixels(spectrogram(given, 0.01, []))

    assert found.shape == (2, -(-len(given) // 3))
    assert found[1, 0] == round(255 * (1 - (1.0 / 3.0)))
    assert (found[0] == 0).all()


@given(st.text(st.characters(exclude_categories=()), max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_text_breaks_the_file(text):
    picture = spectrogram(features(4, 3), 0.01, [Mark(text, 0.0, 0.02)], title=text)

    root = parsed(picture.encode().decode())
    told = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
    told = re.sub(r"\r\n?", "\n", told)  # as every reader of XML does
    assert (root.find(f"{SVG}title").text or "") == told
    assert root.find(f"{SVG}g/{SVG}title").text == f"{told} (0.000 to 0.020 s)"


def test_markup_is_text():
    picture = spectrogram(features(4, 3), 0.01, [Mark("<b>&\x00", 0.0, 0.02)], title='"</svg>')

    assert texts(picture)[0] == '"</svg>'
    assert "<b>&\N{REPLACEMENT CHARACTER}" in texts(picture)


@pytest.mark.parametrize("shape", [(0, 20), (0, 0), (5, 0)])
def test_an_empty_recording_has_a_picture_without_pixels(shape):
    picture = spectrogram(np.zeros(shape), 0.01, [Mark("a", 0.0, 0.0)], title="nothing")

    assert parsed(picture).find(f"{SVG}image") is None
    assert "0 s" in texts(picture)


def test_equal_input_gives_equal_text():
    pictures = {spectrogram(features(), 0.01, [Mark("a", 0.0, 0.1)], title="x") for _ in range(3)}

    assert len(pictures) == 1


def test_what_is_no_spectrogram_is_refused():
    with pytest.raises(ValueError, match=r"these features have shape \(5,\)"):
        spectrogram(np.zeros(5), 0.01, [])
    with pytest.raises(ValueError, match="Frames must last a positive time, but 0"):
        spectrogram(features(), 0, [])


def test_the_picture_is_as_high_as_what_is_in_it():
    root = parsed(spectrogram(features(), 0.01, [Mark("a", 0.0, 0.1)], title="x"))

    _, _, width, height = map(float, root.get("viewBox").split())
    for one in root.iter(f"{SVG}text"):
        assert 0 <= float(one.get("x")) <= width
        assert TOP / 2 <= float(one.get("y")) <= height
