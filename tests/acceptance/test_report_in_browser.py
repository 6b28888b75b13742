"""The reports of a run, of two and of a sweep in headless Chromium: drawn, readable, and without a complaint."""

import itertools
import os
from pathlib import Path

import pytest
from browser import browser, looked_at

import etude
from etude.app.new.project import new
from etude.app.report.gather import folders
from etude.app.report.page import report

pytestmark = pytest.mark.acceptance
pytest.importorskip("bokeh", reason="needs etude[report]")

WIDTHS = 1280, 390
PICTURES = os.environ.get("ETUDE_PICTURES")
"""A folder that pictures of the pages are written to, as those in docs/guide/pictures."""
AA, AA_LARGE = 4.5, 3.0
"""The least contrast of text, and of text from 24 pixels on, or from 18.66 in bold (WCAG 2.2, 1.4.3)."""
LOOK = """
(async () => {
  const wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));
  for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {  // charts are drawn when they come into view
    scrollTo(0, y);
    await wait(0.15);
  }
  await wait(1);
  const all = root => [...root.querySelectorAll("*")].flatMap(
    one => [one, ...(one.shadowRoot ? all(one.shadowRoot) : [])]);
  const elements = all(document);
  const parsed = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const above = one => one.parentElement || (one.getRootNode() || {}).host;
  const behind = one => {
    for (; one; one = above(one)) {
      const color = parsed(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0.99) return color;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  };
  const light = ([r, g, b]) => {
    const part = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const texts = elements.filter(one => [...one.childNodes].some(part => part.nodeType === 3 && part.data.trim()))
    .filter(one => !["SCRIPT", "STYLE", "TITLE", "NOSCRIPT"].includes(one.tagName) && one.getClientRects().length)
    .filter(one => getComputedStyle(one).visibility === "visible");
  const contrasts = texts.map(one => {
    const style = getComputedStyle(one), front = light(parsed(style.color)), back = light(behind(one));
    const [high, low] = front > back ? [front, back] : [back, front], size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    return [(high + 0.05) / (low + 0.05), large, size, one.tagName + ": " + one.textContent.trim().slice(0, 40)];
  });
  const canvases = elements.filter(one => one.tagName === "CANVAS" && one.getClientRects().length);
  const isBlank = one => {
    if (!one.width || !one.height) return true;
    const pixels = new Uint32Array(one.getContext("2d").getImageData(0, 0, one.width, one.height).data.buffer);
    return pixels.every(pixel => pixel === pixels[0]);
  };
  const layers = Map.groupBy(canvases, one => one.getRootNode());  // of a chart, one of which may hold nothing yet
  const blank = [...layers.values()].filter(some => some.every(isBlank));
  scrollTo(0, 0);
  const images = [...document.images];
  return {
    contrasts, canvases: canvases.length, blank: blank.length,
    charts: [...document.querySelectorAll(".charts")].filter(one => one.childElementCount).map(one => one.id),
    broken: images.filter(one => one.complete && !one.naturalWidth).length,
    wide: document.documentElement.scrollWidth - innerWidth,
    nameless: elements.filter(one => ["BUTTON", "SELECT", "INPUT"].includes(one.tagName) && one.getClientRects().length)
      .filter(one => !(one.textContent.trim() || one.labels?.length || one.ariaLabel || one.title)).length,
    language: document.documentElement.lang,
  };
})()
"""
TINY = {
    "train.max_duration": "4 epochs",
    "train.eval_every": "1 epoch",
    "train.log_every": "1 step",
    "train.save_outputs": ["val"],
    "train.device": "cpu",
    "log.tensorboard": False,
    "log.progress": False,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Six runs of a grid, and a page of one, of two, and of all."""
    place = tmp_path_factory.mktemp("grid")
    new("classification", place / "loans", data="tabular")
    for rate, width in itertools.product((0.001, 0.003, 0.01), (4, 16)):
        own = {"optimizer.learning_rate": rate, "model.hidden": [width], "run.name": f"rate {rate}, width {width}"}
        etude.train(place / "loans/config.toml", {**TINY, **own, "run.dir": str(place / "runs")})
    every = folders([place / "runs"])
    for name, some in {"run": every[:1], "two": every[:2], "sweep": every}.items():
        (place / f"{name}.html").write_text(report(some), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def address():
    with browser() as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "two", "sweep"])
def test_a_page_is_drawn_and_can_be_read(runs, address, name, width, dark):
    told, complaints, picture = looked_at(
        address, runs / f"{name}.html", width, LOOK, dark=dark, picture=None if PICTURES is None else 1800
    )

    if PICTURES is not None:
        Path(PICTURES, f"report-{name}-{width}{'-dark' if dark else ''}.png").write_bytes(picture)
    assert complaints == []
    assert told["canvases"] > 0
    assert (told["blank"], told["broken"], told["nameless"]) == (0, 0, 0)
    assert set(told["charts"]) >= {"curves", "schedules", "pace"} | ({"sweep"} if name == "sweep" else set())
    assert told["wide"] <= 0, f"the page is {told['wide']} pixels wider than its window"
    faint = [one for one in told["contrasts"] if one[0] < (AA_LARGE if one[1] else AA)]
    assert faint == []
    assert min(size for _, _, size, _ in told["contrasts"]) >= 9
    assert told["language"] == "en"
