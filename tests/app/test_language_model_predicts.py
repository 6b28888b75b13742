"""`etude predict` of a language model, and what is written of it: lines, objects, a terminal, scores, exports."""

import io
import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from texts_of_runs import CARRIED, CONFIG, folder

import etude
from etude.__main__ import main
from etude.tasks.language_model.task import LanguageModelTask

PROMPTS = ["the red", "a", "", "dog ran over the new hill"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("predicts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder(place / "texts")
        (place / "lm.toml").write_text(CONFIG)
        etude.train("lm.toml", {"optimizer.learning_rate": 0.01})
        etude.train("lm.toml", {**CARRIED, "run.name": "lstm", "optimizer.learning_rate": 0.01})
    return place


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture
def predict(monkeypatch, capsys):
    """Predict by the shell: what it wrote, after a good end."""

    def run(*flags, run="runs/lm", given="", code=0):
        stdin = io.TextIOWrapper(io.BytesIO(given if isinstance(given, bytes) else given.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["predict", run, *flags]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def prompts(*texts):
    return [word for text in texts for word in ("--prompt", text)]


@pytest.mark.parametrize("run", ["runs/lm", "runs/lstm"])
def test_the_same_seed_gives_the_same_text_however_prompts_come(run, predict):
    lines = predict(run=run, given="\n".join(PROMPTS))

    Path("prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    assert len(lines.splitlines()) == len(PROMPTS)
    assert predict("prompts.txt", run=run) == lines
    assert predict(*prompts(*PROMPTS), run=run) == lines
    for size in ("1", "3"):
        assert predict("--batch-size", size, run=run, given="\n".join(PROMPTS)) == lines
    assert predict("--seed", "2", run=run, given="\n".join(PROMPTS)) != lines


def test_python_predicts_what_the_shell_does(predict):
    run = etude.Run("runs/lm")

    shown = [json.loads(line)["prediction"] for line in predict("--json", given="\n".join(PROMPTS)).splitlines()]
    assert run.predict(PROMPTS) == shown
    assert [found[0].text for found in run.load().predict(PROMPTS)] == shown


def test_temperature_0_takes_the_likeliest_of_every_step(predict):
    task = etude.Run("runs/lm").load()
    assert isinstance(task, LanguageModelTask)
    tokens = task.tokens_of("the red")
    begin = len(tokens)
    with torch.no_grad():
        for _ in range(8):
            logits = task.model(torch.tensor([tokens]))[0, -1]
            logits[:3] = -torch.inf  # padding, unknown, begin
            tokens.append(int(logits.argmax()))
    by_hand = task.tokenizer.decode(tokens)[len("the red") :]

    assert 3 not in tokens[begin:]
    (answer,) = predict("--temperature", "0", "--json", "--prompt", "the red").splitlines()
    assert json.loads(answer)["prediction"] == by_hand


def test_an_object_tells_all_of_every_sample(predict):
    (line,) = predict("--json", "--samples", "3", "--prompt", "the").splitlines()

    found = json.loads(line)
    assert found["prompt"] == "the"
    assert found["prediction"] == found["predictions"][0]["text"]
    assert len({one["text"] for one in found["predictions"]}) == 3
    assert all(one["log_probability"] < 0 and 1 <= one["tokens"] <= 8 for one in found["predictions"])
    assert {one["end"] for one in found["predictions"]} <= {"eos", "stop", "length"}


FLAGS = {
    "--temperature": "3.0",
    "--top-k": "1",
    "--top-p": "0.01",
    "--min-p": "0.99",
    "--repetition-penalty": "50",
    "--max-tokens": "2",
    "--seed": "7",
    "--stop": "e",
    "--samples": "2",
    "--checkpoint": "4",
    "--whole": None,
    "--raw": None,
    "--score": None,
    "--task.prompt": "middle",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_changes_what_is_written(flag, predict):
    given = "the red\nthe old house\n"

    value = FLAGS[flag]
    assert predict(flag, *([] if value is None else [value]), given=given) != predict(given=given)


def test_a_completion_ends_before_a_stop_text(predict):
    whole = json.loads(predict("--json", "--prompt", "the"))["prediction"]

    cut = json.loads(predict("--json", "--prompt", "the", "--stop", whole[3:5], "--stop", "\0"))["predictions"][0]

    assert cut["text"] == whole[: whole.find(whole[3:5])]
    assert cut["end"] == "stop"


def test_line_breaks_are_written_as_signs_unless_raw_is_asked_for(predict):
    answers = [json.loads(line)["prediction"] for line in predict("--json", *prompts(*"abcdef")).splitlines()]

    lines = predict(*prompts(*"abcdef")).splitlines()
    assert [line.encode("latin-1", "backslashreplace").decode("unicode_escape") for line in lines] == answers
    assert predict("--raw", *prompts(*"abcdef")) == "".join(f"{answer}\n\n" for answer in answers)


def test_the_whole_input_is_one_prompt_on_request(predict):
    (line,) = predict("--whole", "--json", given="the red\n\nhouse\n").splitlines()

    assert json.loads(line)["prompt"] == "the red\n\nhouse\n"


@pytest.mark.parametrize("run", ["runs/lm", "runs/lstm"])
def test_a_score_is_the_sum_over_the_tokens_of_the_text_and_its_end(run, predict):
    task = etude.Run(run).load()
    text = "the red dög"
    tokens = [3, *task.tokenizer.encode(text), 3]
    with torch.no_grad():
        logs = task.model(torch.tensor([tokens[:-1]]))[0].log_softmax(-1)
    total = sum(float(logs[at, token]) for at, token in enumerate(tokens[1:]))

    value, bits, shown = predict("--score", run=run, given=text).rstrip("\n").split("\t")
    found = json.loads(predict("--score", "--json", run=run, given=text))
    assert float(value) == pytest.approx(total, abs=1e-4)
    assert float(bits) == pytest.approx(-total / math.log(2) / len(text.encode()), abs=1e-4)
    assert shown == text
    assert found["log_probability"] == pytest.approx(total, abs=1e-4)
    assert sum(token["log_probability"] for token in found["tokens"]) == pytest.approx(total, abs=1e-4)
    assert "".join(token["text"] for token in found["tokens"]) == text


@pytest.mark.parametrize("run", ["runs/lm", "runs/lstm"])
def test_a_prompt_beyond_the_window_is_completed_and_scored(run, predict):
    long = "the red house stands on a hill. " * 40

    assert len(predict(run=run, given=long).splitlines()) == 1
    assert float(predict("--score", run=run, given=long).split("\t")[0]) < -100


WRONG = {
    "no UTF-8 at all": (3, ["--whole"], b"red \xff\n", "standard input must be UTF-8, but holds the byte 0xff"),
    "no file": (3, ["gone.txt"], b"", "gone.txt does not exist"),
    "cold": (2, ["--temperature", "-1"], b"", "task.temperature must be at least 0, but is -1.0"),
    "no samples": (2, ["--samples", "0"], b"", "task.samples must be at least 1"),
    "stop at nothing": (2, ["--stop", ""], b"", "must not be empty"),
    "a share above 1": (2, ["--top-p", "2"], b"", "task.top_p must be more than 0 and at most 1"),
    "n best": (2, ["--n-best", "2"], b"", "--n-best is for translations; a language model takes --samples 2"),
    "a beam": (2, ["--beam-size", "2"], b"", "task.beam_size is not a key of [task]"),
    "two inputs": (2, ["texts/00.txt", "--prompt", "a"], b"", "leave out FILE, or --prompt"),
    "two forms of input": (2, ["--whole", "--prompt", "a"], b"", "--prompt takes the place of an input"),
    "two forms": (2, ["--json", "--raw"], b"", "--json and --raw are two forms of output"),
    "samples of a score": (2, ["--score", "--samples", "2"], b"", "leave out --samples"),
    "no such checkpoint": (
        5,
        ["--checkpoint", "5"],
        b"",
        "has no checkpoint '5'; it has best, last and the steps: 4, 6",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_sentence(name, predict):
    code, flags, given, told = WRONG[name]

    error = predict(*flags, given=given, code=code)

    assert told in error
    assert len(error.splitlines()) == 1


def test_a_bad_line_costs_no_other_its_completion(predict, monkeypatch, capsys):
    def given(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return main(["predict", "runs/lm", "--temperature", "1"]), capsys.readouterr()

    _, alone = given(b"the\na\nred\n")
    code, found = given(b"the\n\xff\nred\n")

    assert code == 3
    assert found.out.split("\n")[0::2] == alone.out.split("\n")[0::2]
    assert found.out.split("\n")[1] == ""
    assert found.err.splitlines()[0] == "etude: standard input, line 2: invalid UTF-8 (byte 0xff at position 1)."


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--samples", "2"], "\n\n"),
        (["--raw"], "\n\n"),
        (["--score"], "\n"),
        (["--json"], None),
        (["--json", "--score"], None),
    ],
)
def test_a_bad_line_has_as_many_lines_as_any_other(flags, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\nred\n")))

    assert main(["predict", "runs/lm", *flags]) == 3
    out = capsys.readouterr().out
    if expected is None:
        assert json.loads(out.splitlines()[0])["error"] == "invalid UTF-8 (byte 0xff at position 1)"
        assert "error" not in json.loads(out.splitlines()[1])
    else:
        assert out.startswith(expected)
        assert out.removeprefix(expected)[0] != "\n"


def test_flags_of_a_language_model_are_refused_elsewhere(place, capsys):
    own = "import etude\nclass Mine(etude.Task):\n    def __init__(self, model):\n        super().__init__()\n"
    own += "        self.model = model\n    def training_step(self, batch):\n"
    own += "        return self.model(batch.inputs).square().mean()\n"
    Path("mine.py").write_text(own)
    etude.train("lm.toml", {"task": {"type": "mine.py:Mine"}, "run.name": "mine", "data.split": False})

    assert main(["predict", "runs/mine", "--allow-code", "--prompt", "a"]) == 2
    assert "--prompt is for a language model, but this run's task is" in capsys.readouterr().err
    assert main(["predict", "runs/mine", "--prompt", "a"]) == 7


def test_a_terminal_sees_the_prompt_and_the_text_as_it_comes(predict):
    answers = [json.loads(line)["prediction"] for line in predict("--json", *prompts("the", "a")).splitlines()]
    ours, theirs = pty.openpty()

    command = [sys.executable, "-m", "etude", "predict", "runs/lm", *prompts("the", "a")]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        seen = b""
        try:
            while block := os.read(ours, 4096):
                seen += block
        except OSError:  # how a terminal ends
            pass
        _, error = process.communicate()

    text = seen.decode().replace("\r\n", "\n")
    assert (process.returncode, error) == (0, b"")
    assert text.startswith("the")
    assert "".join(sign for sign in text if sign.isalpha()) == "".join(
        sign
        for prompt, answer in zip(("the", "a"), answers, strict=True)
        for sign in prompt + shown(answer)
        if sign.isalpha()
    )


def shown(text):
    from etude.app.cli.streams import printable

    return printable(text)


def test_a_reader_that_goes_ends_it_quietly():
    command = f"yes the red | {sys.executable} -m etude predict runs/lm --max-tokens 1 | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False)

    assert len(done.stdout.splitlines()) == 1
    assert b"Error" not in done.stderr
    assert done.returncode == 141


def test_an_exported_folder_is_read_by_transformers(tmp_path, capsys):
    import transformers

    assert main(["export", "runs/lm", str(tmp_path / "out")]) == 0
    assert "LlamaForCausalLM" in capsys.readouterr().err
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("the red house", return_tensors="pt")["input_ids"]
    task = etude.Run("runs/lm").load()
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, task.model(ids), atol=1e-5)


def test_an_exported_lstm_predicts_what_the_run_does(tmp_path, predict, capsys):
    told = predict("--prompt", "the", run="runs/lstm")

    assert main(["export", "runs/lstm", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert predict("--checkpoint", str(tmp_path / "out"), "--prompt", "the", run=str(tmp_path / "out")) == told


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (("--temperature", "0", "--max-tokens", "3"), {"temperature": 0, "max_tokens": 3}),
        (("--seed", "7", "--top-k", "5"), {"seed": 7, "top_k": 5}),
    ],
)
def test_python_samples_as_the_shell_is_told_to_and_for_that_call_alone(flags, options, predict):
    run = etude.Run("runs/lm")
    before = run.predict(PROMPTS)

    asked = run.predict(PROMPTS, **options)

    shown = [
        json.loads(line)["prediction"] for line in predict("--json", *flags, given="\n".join(PROMPTS)).splitlines()
    ]
    assert asked == shown != before
    assert run.predict(PROMPTS) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temprature": 1.0}, "temprature is not an option of predict; did you mean temperature?"),
        ({"beam_size": 4}, "beam_size is not an option of predict; this run's task takes max_tokens, samples,"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_an_option_of_predict_that_does_not_hold_is_a_sentence(options, said):
    with pytest.raises(etude.errors.ConfigError, match=said.replace("?", r"\?")) as error:
        etude.Run("runs/lm").predict(["a"], **options)

    assert "overrides[" not in str(error.value)
