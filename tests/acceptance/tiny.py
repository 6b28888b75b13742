"""A translation run of a second or two with every kind of moment in it, and what two such runs must share."""

import json
import random
import shutil

from etude.train.memory.checkpoint import verify

CLOCK = ("_seconds", "_per_second", "_memory")
STATE_CLOCK = {"seconds"}
PROGRESS, SECONDS = {"since", "judged"}, 5
"""What the state keeps as a Progress in a list, and where its clock stands there."""
CONFIG = """
[task]
type = "translation"
beam_size = 2

[data]
train = "train.tsv"
val = "val.tsv"
workers = {workers}

[tokenizer]
type = "char"

[model]
d_model = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 32
dropout = 0.1

[optimizer]
learning_rate = {{ schedule = "linear", peak = 1e-2, over = "150 steps" }}

[train]
max_duration = "{length}"
eval_every = "0.25 epochs"
save_every = "7 steps"
log_every = "1 step"
batch_size = 8
accumulate = 2
clip_grad = 1.0
ema_decay = 0.9
keep_last = 2
keep_best = 2
device = "cpu"
"""


def written(folder, *, workers=0, length="6 epochs"):
    """Write the config and its data; the command that trains it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(CONFIG.format(workers=workers, length=length))
    for name, count in (("train", 400), ("val", 24)):
        draw = random.Random(name)
        lines = ["".join(draw.choices("abcdefgh ", k=draw.randint(4, 12))).strip() or "a" for _ in range(count)]
        (folder / f"{name}.tsv").write_text("source\ttarget\n" + "".join(f"{a}\t{a[::-1].upper()}\n" for a in lines))
    return ["train", "tiny.toml"]


def run_folder(folder):
    return folder / "runs" / "tiny"


def rows(folder):
    """Every line of the record, without what depends on the clock."""
    lines = (run_folder(folder) / "metrics.jsonl").read_text().splitlines()
    kept = []
    for line in lines:
        row = json.loads(line)
        kept.append({k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(CLOCK)})
    return kept


def checkpoint(folder, name):
    """The bytes of a checkpoint's tensors, and its state without the clock."""
    place = run_folder(folder) / "checkpoints" / name
    verify(place.resolve())
    files = {file.name: file.read_bytes() for file in place.glob("*.safetensors")}
    state = json.loads((place / "state.json").read_text())
    # A row's length follows the digits of its times.
    state.pop("record")
    return files | {"state.json": without_clock(state), "step": place.resolve().name}


def without_clock(value, path=()):
    if isinstance(value, dict):
        return {key: without_clock(part, (*path, key)) for key, part in value.items() if key not in STATE_CLOCK}
    if isinstance(value, list):
        clock = SECONDS if path[-1:] and path[-1] in PROGRESS else None
        return [without_clock(part) for index, part in enumerate(value) if index != clock]
    return value


def differences(ours, theirs, path):
    """Where two states differ, and by what."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            yield from differences(ours.get(key), theirs.get(key), f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(*pair, f"{path}/{index}")
    elif ours != theirs:
        yield f"{path}: {ours} instead of {theirs}"


def assert_equal_runs(found, expected):
    assert rows(found) == rows(expected)
    for name in ("last", "best"):
        ours, theirs = checkpoint(found, name), checkpoint(expected, name)
        assert list(differences(ours.pop("state.json"), theirs.pop("state.json"), name)) == []
        assert {name: [key for key in theirs if ours.get(key) != theirs[key]]} == {name: []}
        assert ours.keys() == theirs.keys()
    names = [sorted(p.name for p in (run_folder(f) / "checkpoints").iterdir()) for f in (found, expected)]
    assert names[0] == names[1]
    inside = [sorted(p.name for p in run_folder(f).iterdir()) for f in (found, expected)]
    assert inside[0] == inside[1]


def moment(folder):
    """What a killed run was doing, as far as its folder tells."""
    checkpoints = run_folder(folder) / "checkpoints"
    if not checkpoints.is_dir():
        return "before training"
    names = [path.name for path in checkpoints.iterdir()]
    steps = sorted(name for name in names if name.startswith("step-"))
    last = checkpoints / "last"
    if any(name.startswith(".partial-") for name in names):
        return "in a save"
    if any(name.startswith(".doomed-") for name in names):
        return "while deleting"
    if any(name.endswith(".tmp") for name in names) or (steps and last.resolve().name != steps[-1]):
        return "between rename and link"
    return "in steps or validation" if steps else "before the first save"


def emptied(folder):
    shutil.rmtree(folder / "runs", ignore_errors=True)
