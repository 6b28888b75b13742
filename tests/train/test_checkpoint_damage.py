"""A damaged checkpoint is named, and the newest sound one is used; a part of one is never loaded."""

import json
import pickle
import shutil
import struct
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saves import begun, save, tree
from small_runs import Regression, loaders, rows, trainer, weights

from etude.base.errors import EtudeError, RefusedError, StorageError
from etude.base.files import sha256_of
from etude.train.memory.checkpoint import read, read_weights, verify

FILES = ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.safetensors", "state.json"]


@pytest.fixture(scope="module")
def sound(quick_folder):
    """A run folder with the checkpoints of steps 6 and 7, and its record."""
    trainer(quick_folder / "sound", max_duration="7 steps", eval_every="3 steps").fit(Regression(), *loaders())
    return quick_folder / "sound"


@pytest.fixture
def run(sound, quick_folder):
    place = quick_folder / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place, symlinks=True)
    return place


def go_on(folder, until="9 steps", **options):
    said = []
    made = trainer(folder, max_duration=until, eval_every="3 steps", say=said.append, **options)
    return made.fit(Regression(), *loaders()), " ".join(said)


def newest(run):
    return run / "checkpoints" / "step-00000007"


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def become_folder(path):
    path.unlink()
    path.mkdir()


def become_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGES = [cut, lengthen, flip, empty, become_folder, become_link, lambda path: path.unlink()]


@pytest.mark.parametrize("name", [*FILES, "task.json"])
@pytest.mark.parametrize("damage", DAMAGES, ids=["cut", "longer", "flipped", "empty", "folder", "link", "missing"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_gone_on_from(name, damage, run, sound):
    damage(newest(run) / name)

    result, said = go_on(run)

    assert "Falling back to an earlier checkpoint" in said
    assert name in said
    assert "Resuming from step 6" in said
    assert result.progress.step == 9
    for step in (8, 9):
        assert verify(run / "checkpoints" / f"step-0000000{step}")["step"] == step


def test_after_a_fall_back_the_run_is_the_unbroken_one(run, quick_folder):
    flip(newest(run) / "model.safetensors")
    go_on(run, until="10 steps")
    go_on(quick_folder / "straight", until="10 steps")

    assert rows(run) == rows(quick_folder / "straight")
    assert weights(run) == weights(quick_folder / "straight")


def test_where_none_is_sound_the_run_is_refused_and_left_as_it_is(run):
    for folder in (run / "checkpoints").glob("step-*"):
        cut(folder / "model.safetensors")
    before = tree(run / "checkpoints")

    with pytest.raises(StorageError, match=r"No checkpoint in .* is intact.*model\.safetensors is cut short"):
        go_on(run)

    assert tree(run / "checkpoints") == before


MANIFESTS = {
    "no JSON": "\0\1\2",
    "not UTF-8": b"\xff\xfe",
    "a list": "[]",
    "null": "null",
    "deep": "[" * 100_000,
    "no files": '{"format": 1, "step": 7}',
    "files of a list": '{"format": 1, "step": 7, "files": []}',
    "empty": '{"format": 1, "step": 7, "files": {}}',
    "a file of null": '{"format": 1, "step": 7, "files": {"model.safetensors": null}}',
    "infinite size": '{"format": 1, "step": 7, "files": {"model.safetensors": {"bytes": Infinity, "sha256": ""}}}',
    "infinite format": '{"format": Infinity, "step": 7, "files": {}}',
    "long name": json.dumps({"format": 1, "step": 7, "files": {"x" * 5000: {"bytes": 1, "sha256": ""}}}),
    "of tomorrow": '{"format": 99, "step": 7, "files": {}}',
}


@pytest.mark.parametrize("damage", [cut, lengthen, empty, become_folder, lambda path: path.unlink()])
def test_a_damaged_manifest_is_named_and_the_checkpoint_before_is_gone_on_from(damage, run):
    damage(newest(run) / "manifest.json")

    _, said = go_on(run)

    assert "manifest.json" in said
    assert "Resuming from step 6" in said


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_of_garbage_is_named(content, run):
    manifest = newest(run) / "manifest.json"
    manifest.write_bytes(content.encode() if isinstance(content, str) else content)

    _, said = go_on(run)

    assert str(manifest) in said
    assert "Resuming from step 6" in said


@pytest.mark.parametrize("name", ["../outside", "..", "", ".", "/etc/hostname", "a/b", "nul\0", "\ud800"])
def test_a_manifest_reads_nothing_outside_its_folder(name, run):
    outside = run / "checkpoints" / "outside"
    outside.write_bytes(b"secret")
    manifest = json.loads((newest(run) / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 6, "sha256": sha256_of(outside)}
    (newest(run) / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(StorageError):
        verify(newest(run))


def test_a_file_that_the_manifest_does_not_list_is_not_read(run):
    for name in ("ema.safetensors", "foreign"):
        manifest = json.loads((newest(run) / "manifest.json").read_text())
        manifest["files"].pop(name, None)
        (newest(run) / "manifest.json").write_text(json.dumps(manifest))
        (newest(run) / name).write_bytes(b"foreign")

    state, _, averaged = read(newest(run))

    assert averaged is None
    assert state["progress"]["step"] == 7
    assert read_weights(newest(run), averaged=True).keys() == Regression().state_dict().keys()


def test_a_checkpoint_under_the_name_of_another_step_is_named(run):
    shutil.rmtree(newest(run))
    shutil.copytree(run / "checkpoints" / "step-00000006", newest(run))

    _, said = go_on(run)

    assert "step-00000007 does not match its name: its manifest.json is of step 6" in said
    assert "Resuming from step 6" in said


def test_weights_of_another_shape_are_refused_with_the_first_differences(run):
    before = tree(run)

    with pytest.raises(RefusedError, match=r"layers\.0\.bias has shape \(8,\) instead of \(9,\)|layers\.0\.weight has"):
        trainer(run, max_duration="9 steps", eval_every="3 steps").fit(Regression(width=9), *loaders())

    after = tree(run)
    assert after.keys() == before.keys()
    # What the run was asked for last, and by whom, is written before its weights are read.
    assert {name for name in after if after[name] != before[name]} <= {".lock", "options.json", "config.toml"}


def point_nowhere(link):
    link.unlink()
    link.symlink_to("step-00000099")


def point_back(link):
    link.unlink()
    link.symlink_to("step-00000006")


def point_outside(link):
    (link.parent.parent / "step-00000001").mkdir()
    link.unlink()
    link.symlink_to("../step-00000001")


@pytest.mark.parametrize("spoil", [point_nowhere, point_back, point_outside, lambda link: link.unlink()])
@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("until", ["7 steps", "9 steps"])
def test_a_stale_or_dangling_link_is_put_right_at_the_next_start(until, name, spoil, run, sound, quick_folder):
    spoil(run / "checkpoints" / name)

    go_on(run, until=until)

    straight = quick_folder / f"unspoilt {until}"
    go_on(straight, until=until)
    for link in ("best", "last"):
        ours, theirs = run / "checkpoints" / link, straight / "checkpoints" / link
        assert ours.readlink() == theirs.readlink(), link
    assert ours.exists()


def test_leftovers_of_killed_processes_are_cleared(run):
    checkpoints = run / "checkpoints"
    for name in (".partial-step-00000008", ".doomed-step-00000005-12"):
        (checkpoints / name).mkdir()
        (checkpoints / name / "model.safetensors").write_bytes(b"half")
    (checkpoints / ".last.12.tmp").symlink_to("step-00000001")
    (run / ".config.toml.12.tmp").write_text("half")
    (run / ".probe-x").write_text("")
    (checkpoints / "step-notes").mkdir()

    go_on(run)

    assert not list(checkpoints.glob(".*"))
    assert [path.name for path in run.glob(".*")] in ([], [".lock"])
    assert (checkpoints / "step-notes").is_dir()


def test_a_damaged_best_is_told_of_and_another_takes_its_place(quick_folder):
    from saves import best_of, ranking, store_in

    store = begun(quick_folder / "best", until=3)
    save(store, 4)
    flip(store.path(3) / "model.safetensors")
    told = []

    store_in(store.folder).settle(4, best=best_of(4), ranking=ranking(4), complain=told.append)

    assert "The best checkpoint is lost" in told[0]
    assert store.link("best") == store.path(4).resolve()


def forged(folder, **files):
    """A checkpoint whose manifest agrees with whatever its files hold."""
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Exploding:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("name", FILES)
def test_no_pickle_is_read(name, run, tmp_path):
    torch.save(Exploding(), tmp_path / "zip")
    for content in (pickle.dumps(Exploding()), (tmp_path / "zip").read_bytes()):
        forged(newest(run), **{name.replace(".", "__"): content})
        with pytest.raises(EtudeError):
            go_on(run)


quick = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$tensor", "$tuple", "$pairs", "$float", "reason", "until", "bytes", "step", "a"]), inner
        )
    ),
    max_leaves=6,
)


@quick
@given(content=st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_manifest_gives_our_errors_alone(content, sound, quick_folder):
    place = quick_folder / "fuzzed" / "step-00000007"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound / "checkpoints" / "step-00000007", place)
    (place / "manifest.json").write_bytes(content)

    with pytest.raises(StorageError):
        verify(place)


header = st.dictionaries(
    st.sampled_from(["layers.0.weight", "a", "__metadata__"]),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "F4", "F8_E8M0", "I64", "X", None, 1]),
            "shape": st.lists(st.integers(-1, 2**40), max_size=3),
            "data_offsets": st.lists(st.integers(-1, 2**62), max_size=3),
        },
    )
    | values,
    max_size=3,
).map(json.dumps)


@quick
@given(
    text=header | st.text(max_size=20),
    length=st.none() | st.integers(0, 2**64 - 1),
    rest=st.binary(max_size=20),
    raw=st.none() | st.binary(max_size=30),
)
def test_any_header_of_a_safetensors_file_gives_our_errors_alone(text, length, rest, raw, quick_folder):
    encoded = text.encode(errors="replace")
    content = struct.pack("<Q", len(encoded) if length is None else length) + encoded + rest if raw is None else raw
    place = quick_folder / "headers"
    place.mkdir(exist_ok=True)
    (place / "model.safetensors").write_bytes(content)

    with suppress(StorageError):
        read_weights(place)


@quick
@given(data=st.data())
def test_any_state_gives_our_errors_alone(data, sound, quick_folder):
    place = quick_folder / "stated"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place, symlinks=True)
    state = json.loads((newest(place) / "state.json").read_text())
    name = data.draw(st.sampled_from([*sorted(state), None]))
    if name is None:
        state = data.draw(values)
    elif data.draw(st.booleans()):
        state[name] = data.draw(values)
    else:
        del state[name]
    forged(newest(place), state__json=json.dumps(state).encode())

    with suppress(EtudeError):
        go_on(place, until="8 steps")
