"""Every shell block of README and guide, run as it is printed, one after the other on a page, on small data."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import soundfile

from etude.__main__ import main
from etude.app.report.watch import Watch

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/guide/*.md")])
BLOCK = re.compile(r"^( *)```(?:sh|bash)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""A block that begins with the name of the file that it is."""
ELSEWHERE = {"make", "pip", "git", "mkdir", "for", "gunzip", "done", "sacrebleu", "torchrun", "srun", "python"}
"""Commands that are not Etude's, and what stands in a loop of them."""
DOWNLOADED = {"recipes/multi30k.toml"}
"""Configs whose data a page has the reader download."""

PAIRS = [(f"{a} {b}", f"{b} {a}") for a in ("one", "two", "three", "four") for b in ("five", "six", "seven", "eight")]
MODEL = "[model]\nd_model = 8\nheads = 2\n{layers}\n[log]\ntensorboard = false\nprogress = false\n"
ON_CPU = 'device = "cpu"\nprecision = "float32"\n'
TRANSLATION = (
    '[task]\ntype = "translation"\nbeam_size = 2\n[data]\ntrain = "train.tsv"\nval = "val.tsv"\ntest = "val.tsv"\n'
    '[tokenizer]\ntype = "word"\n'
    + MODEL.format(layers="encoder_layers = 1\ndecoder_layers = 1\nfeedforward = 8")
    + f'[train]\nmax_duration = "35 epochs"\nbatch_tokens = 4\nsave_every = "300 steps"\n{ON_CPU}'
)
TEXT = (
    '[task]\ntype = "language_model"\nmax_tokens = 8\n[data]\ntrain = "texts"\nblock_size = 16\n'
    '[tokenizer]\ntype = "char"\n'
    + MODEL.format(layers="layers = 1")
    + f'[train]\nmax_duration = "8 steps"\nbatch_size = 2\n{ON_CPU}'
)
CHAT = (
    '[task]\ntype = "hf"\nmax_tokens = 4\n[model]\ntype = "hf"\npath = "model"\n[data]\ntrain = "answers.jsonl"\n'
    f'[train]\nmax_duration = "2 steps"\nbatch_size = 2\n{ON_CPU}[log]\ntensorboard = false\nprogress = false\n'
)
SLANG = "[train]\nbatch_size = 4\nstep_freq = 2\nlearning_rate = 0.008\nwarmup = 8\nmax_epochs = 2\n"
BEFORE = {
    "alignments.md": ["speech"],
    "speech.md": ["speech_ctc"],
    "classification.md": ["text_classification", "tabular"],
    "checkpoints.md": ["numbers"],
    "experiments.md": [f"numbers as {name}" for name in ("small", "large", "small-1", "large-1", "first-try")],
    "fork-and-diff.md": ["translation"],
    "hugging-face.md": ["chat"],
    "plan.md": ["translation"],
    "pretraining.md": ["numbers"],
    "README.md": [],
    "report.md": ["translation", "translation as translation-fork-500"],
    "translation.md": ["numbers"],
}
"""The runs that a page takes to be there."""
SHORT = {"plan.md", "report.md", "scale.md", "sweeps.md"}
"""Pages whose many runs need not be long."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Small data and configs under the names that the pages use."""
    monkeypatch.chdir(tmp_path)
    rows = "source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS)
    for name in ("train", "val", "test", "other", "pairs", "X", "Y", "Z"):
        Path(f"{name}.tsv").write_text(rows)
    Path("many.tsv").write_text(rows + "".join(f"{a}\t{b}\n" for a, b in PAIRS * 128))
    Path("many.toml").write_text(TRANSLATION.replace("train.tsv", "many.tsv").replace("tokens = 4", "tokens = 8192"))
    for language, side in (("en", 0), ("de", 1)):
        Path(f"train.{language}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    for name in ("lines", "prompts", "chapter", "sentences"):
        Path(f"{name}.txt").write_text("one five\ntwo six\n")
    for name in ("texts", "FOLDER"):
        Path(name).mkdir()
        Path(name, "a.txt").write_text("".join(f"Once {a} and {b}.\n" for a, b in PAIRS) * 6)
    Path("recipes").mkdir()
    Path("numbers.toml").write_text(TRANSLATION)
    Path("recipes/translation.toml").write_text(re.sub(r'"(train|val).tsv"', r'"../\1.tsv"', TRANSLATION))
    Path("write.toml").write_text(TEXT)
    Path("recipes/language_model.toml").write_text(TEXT.replace('"texts"', '"../texts"'))
    Path("data.toml").write_text(TRANSLATION.partition("[train]")[0])
    Path("slang.toml").write_text(SLANG)
    write_recordings()
    for name in ("text_classification", "tabular"):
        small = re.sub(r"\d+ epochs?", "4 steps", (ROOT / "recipes" / f"{name}.toml").read_text())
        Path(f"{name}.toml").write_text(small)
        Path(f"recipes/{name}.toml").write_text(small)
    write_pipeline()
    Path("rows.csv").write_text("age,income,debt,years,employment,purpose,postcode\n40,50,10,5,permanent,car,1010\n")
    return tmp_path


def write_recordings():
    """A tiny corpus of tones with its configs, and recordings under the names that the pages use."""
    sys.path.insert(0, str(ROOT / "tests" / "app"))
    from speech_corpora import CONFIG, RATE, spoken, write_corpus

    for name, texts in (("spoken", ["ab", "ba c", "c"] * 4), ("heard", ["ab", "c"])):
        write_corpus(Path(), name, texts)
    small = CONFIG.replace('"train.csv"', '"spoken.csv"').replace('"val.csv"', '"heard.csv"')
    for name in ("speech", "speech_ctc"):
        Path(f"{name}.toml").write_text(small)
    Path("recipes/speech_ctc.toml").write_text(small.replace('"spoken', '"../spoken').replace('"heard', '"../heard'))
    for name in ("recording", "talk"):
        soundfile.write(f"{name}.wav", spoken("ab"), RATE)
    for name in ("list", "interviews"):
        Path(f"{name}.csv").write_text("path,transcript\ntalk.wav,ab\nrecording.wav,ab\n")


def write_pipeline():
    """The pipeline of the recipe, of stages that take a few steps each, on the tiny corpus."""
    told = (ROOT / "recipes/alignment_pipeline.toml").read_text()
    for corpus in ("train", "val", "test"):
        told = told.replace(
            f'{corpus} = "tone_letters"', f'{corpus} = "../{"spoken" if corpus == "train" else "heard"}.csv"'
        )
    told = re.sub(r"\d epochs", "4 steps", told).replace("subsampling = 4", "subsampling = 2")
    Path("recipes/alignment_pipeline.toml").write_text(told.replace('"1 epoch"', '"2 steps"'))


def blocks(page):
    """The shell blocks of a page, each as its lines, continued lines joined."""
    for indent, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        lines = code.replace("\\\n", " ").splitlines()
        yield [line.removeprefix(indent) for line in lines]


def run(line, monkeypatch, capsys):
    """Run a line as a shell would; the exit code of its last command, and what that said."""
    left, _, right = line.rpartition(" | ")
    given = shlex.split(left)[1:] if left else []
    words = shlex.split(right, comments=True)
    out = words[words.index(">") + 1] if ">" in words else None
    words = words[: words.index(">")] if out else words
    words = [found for word in words for found in expanded(word)]
    if words[:1] == ["cd"]:
        monkeypatch.chdir(words[1])
        return 0, ""
    if words[:1] != ["etude"]:
        assert not words or words[0] in ELSEWHERE, line
        return 0, ""
    if DOWNLOADED & set(words):
        return 0, ""
    if words[1:2] == ["rm"]:
        words.append("--yes")  # what a reader answers
    if "--world" in words:  # so many ranks need batches that hold enough for all
        words[2] = "many.toml"
    if "--watch" in words:
        monkeypatch.setattr(Watch, "service_actions", _ctrl_c)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{' '.join(given)}\n".encode())))
    capsys.readouterr()
    code = main(words[1:])
    said = capsys.readouterr()
    if out:
        Path(out).write_text(said.out)
    return code, said.err


def _ctrl_c(server):
    raise KeyboardInterrupt


def expanded(word):
    """The paths that a pattern matches, as a shell has them."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def begin(name, monkeypatch, capsys):
    """Make a run that a page takes to be there."""
    if name == "chat":
        sys.path.insert(0, str(ROOT / "tests" / "tasks"))
        from hf_folders import CHATML, answers, folder

        folder(Path("model"), "llama", CHATML)
        answers(Path("answers.jsonl"))
        Path("chat.toml").write_text(CHAT)
    name, _, called = name.partition(" as ")
    config = f"recipes/{name}.toml" if name == "translation" else f"{name}.toml"
    code, said = run(f"etude train {config} --run.name {called or name}", monkeypatch, capsys)
    assert code == 0, said


@pytest.mark.acceptance
@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=lambda page: page.name)
def test_every_command_of_a_page_runs_as_it_is_printed(page, place, monkeypatch, capsys):
    if page.name in SHORT:
        recipe = Path("recipes/translation.toml")
        recipe.write_text(recipe.read_text().replace("35 epochs", "2 epochs"))
    for name in BEFORE.get(page.name, ()):
        begin(name, monkeypatch, capsys)
    for name, code in FILE.findall(page.read_text(encoding="utf-8")):
        Path(name).write_text(code)

    failed = {}
    for block in blocks(page):
        monkeypatch.chdir(place)  # a `cd` is of its block
        for line in block:
            code, said = run(line, monkeypatch, capsys)
            if code:
                failed[line] = (code, said)

    assert not failed
