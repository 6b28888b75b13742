"""What README and guide show is run: configs load, commands parse, Python executes, links lead somewhere."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import etude
from etude.app.cli.parsing import choose, parse
from etude.app.running import build_job
from etude.app.stages.loading import is_pipeline, load_pipeline
from etude.app.sweep.plan import read_plan
from etude.base.config.json_schema import schema
from etude.tasks.config import any_config, load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
WRITTEN_BY_BENCHMARKS = ROOT / "docs" / "benchmarks.md"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
KEY = re.compile(r"(?:run|task|data|tokenizer|model|init|loss|optimizer|train|log)(?:\.[a-z_]+)+")
FILES = (".json", ".md", ".toml", ".py", ".onnx", ".safetensors", ".tsv", ".txt", ".jsonl")
SEPARATORS = {"|", ";", "&&", "||"}
REDIRECTIONS = {">", ">>", "<"}

BASE = """
[task]
type = "translation"

[data]
train = "train.tsv"
val = "val.tsv"
"""
TINY = (
    BASE
    + """
[tokenizer]
type = "char"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8

[train]
max_duration = "1 epoch"
batch_size = 8
"""
)

WRITE = """
[task]
type = "language_model"
max_tokens = 8

[data]
train = "a.txt"
block_size = 16

[tokenizer]
type = "char"

[model]
d_model = 8
heads = 2
layers = 1

[train]
max_duration = "4 steps"
batch_size = 2
device = "cpu"
"""


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in one language, without the indentation of the list it may stand in."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        "\n".join(line.removeprefix(indent) for line in code.split("\n"))
        for indent, kind, code in found
        if kind == language
    ]


def numbered(language: str) -> list[object]:
    """Every block of a language, as a test's parameters."""
    return [
        pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, code in enumerate(blocks(page, language), 1)
    ]


def commands(code: str) -> Iterator[list[str]]:
    """The simple commands of a shell block, redirections taken off."""
    for line in code.replace("\\\n", " ").split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        rest = iter(lexer)
        for word in rest:
            if word in SEPARATORS:
                yield words
                words = []
            elif word in REDIRECTIONS:
                next(rest)
            else:
                words.append(word)
        yield words


def load(path: Path, overrides: list[str]) -> object:
    """The config of a run, or of a pipeline."""
    return load_pipeline(path, overrides, build_job) if is_pipeline(path) else load_config(path, overrides)


def slugs(page: Path) -> set[str]:
    """The anchors that a page's headings have where it is shown."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with tiny data and the config `numbers.toml`, in which a page's Python is run."""
    rows = "".join(f"{word} {other}\t{other} {word}\n" for word in ("one", "two") for other in ("three", "four"))
    for name in ("train", "val"):
        (tmp_path / f"{name}.tsv").write_text("source\ttarget\n" + rows * 4)
    (tmp_path / "numbers.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def reference():
    plan = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(plan)
    plan.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def every_key():
    return schema(any_config())


@pytest.mark.parametrize("code", numbered("toml"))
def test_a_config_that_is_shown_loads(code, tmp_path):
    (tmp_path / "base.toml").write_text(BASE)
    whole = code if "[task]" in code or "extends" in code else 'extends = "base.toml"\n' + code
    (tmp_path / "shown.toml").write_text(whole)

    assert load(tmp_path / "shown.toml", [])


@pytest.mark.parametrize("code", numbered("sh"))
def test_a_command_that_is_shown_is_one(code, tmp_path):
    (tmp_path / "base.toml").write_text(BASE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for words in commands(code):
        match words:
            case ["etude", verb, *rest]:
                arguments, overrides = parse(choose(verb), rest)
                named = ROOT / getattr(arguments, "config", "-")
                path = named if named.is_file() else tmp_path / "base.toml"
                assert read_plan(path, overrides, runs=False) if verb == "sweep" else load(path, overrides)
            case ["make", target]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, place, capsys):
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
    names = {"train": data, "val": data, "__name__": page.stem}
    if page.name == "language-models.md":
        (place / "write.toml").write_text(WRITE)
        (place / "a.txt").write_text("Once upon a time the hill was green.\n" * 40)
        etude.train("write.toml")

    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)  # noqa: S102 - our own pages

    said = capsys.readouterr().out
    for expected in re.findall(r"print\(.*\) +# (\S.*)$", "".join(blocks(page, "python")), re.MULTILINE):
        assert expected in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_page_and_a_heading(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target == WRITTEN_BY_BENCHMARKS:
            continue
        assert target.exists(), link
        assert not heading or heading in slugs(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_keys_and_verbs_that_are_there(page, reference, every_key):
    if page.name == "coming-from.md" or page == WRITTEN_BY_BENCHMARKS:
        return
    for code in INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if KEY.fullmatch(code) and not code.endswith(FILES):
            assert reference.is_known(code, every_key), code
        if verb := re.match(r"etude ([a-z]+)", code):
            choose(verb[1])


def test_the_pages_made_from_code_are_up_to_date(reference):
    for name, page in reference.PAGES.items():
        assert (reference.GUIDE / name).read_text(encoding="utf-8") == page(), "run docs/reference.py"


def test_the_config_on_the_first_screen_has_twelve_lines_and_the_python_six():
    readme = ROOT / "README.md"

    config, python = blocks(readme, "toml")[0], blocks(readme, "python")[0]

    assert len(config.strip().split("\n")) == 12
    assert len([line for line in python.split("\n") if line]) == 6


def test_a_newcomer_reads_at_most_300_lines_to_know_the_whole():
    train = ROOT / "src" / "etude" / "train"
    read = [ROOT / "docs" / "architecture.md", train / "loop.py", train / "learner.py"]

    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in read) <= 300
