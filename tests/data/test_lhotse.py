"""Cuts of Lhotse, in the form that its documentation and its own manifests have, hand-made."""

import gzip
import json

import numpy as np
import pytest
import soundfile

from etude.__main__ import main
from etude.base.errors import DataError
from etude.data.files.lines import Flaw
from etude.data.files.manifests import Columns, Recording, open_manifest

RATE = 8000


def supervision(text, start=0.0, duration=0.5, **more):
    given = {"id": "s", "recording_id": "r", "start": start, "duration": duration, "channel": 0, "text": text}
    return {**given, "language": "English", **more}


def recording(source="a.wav", **changes):
    given = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": source}],
        "sampling_rate": RATE,
        "num_samples": 2 * RATE,
        "duration": 2.0,
        "channel_ids": [0],
    }
    return {**given, **changes}


def cut(*supervisions, start=0.0, duration=2.0, **changes):
    given = {"id": "c", "start": start, "duration": duration, "channel": 0, "supervisions": list(supervisions)}
    return {**given, "recording": recording(), "type": "MonoCut", **changes}


def write(path, *cuts):
    content = "".join(json.dumps(one) + "\n" for one in cuts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def opened(path, **columns):
    manifest = open_manifest(path, columns=Columns(**columns))
    return manifest, list(manifest.rows(0, len(manifest)))


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz", "dev.jsonl.gz"])
def test_cuts_are_recordings_with_their_part_text_and_speaker(tmp_path, name):
    path = write(
        tmp_path / name,
        cut(supervision("well said", speaker="ann"), start=0.5, duration=1.25),
        cut(supervision("", duration=2.0), recording=recording("deep/b.flac")),
        cut(),
    )

    manifest, rows = opened(path)

    assert rows == [
        Recording(tmp_path / "a.wav", "well said", 0.5, 1.75, "ann"),
        Recording(tmp_path / "deep/b.flac", "", 0.0, None, ""),
        Recording(tmp_path / "a.wav", "", 0.0, None, ""),
    ]
    assert manifest.location(1).endswith(f"{name}, line 2")


def test_several_supervisions_are_joined_in_the_order_of_time(tmp_path):
    later, sooner = supervision("and again", 0.9, 0.6, speaker="bob"), supervision("well said", 0.0, 0.8, speaker="ann")

    _, (row,) = opened(write(tmp_path / "cuts.jsonl", cut(later, sooner)))

    assert (row.text, row.speaker) == ("well said and again", "ann")


def test_further_fields_are_those_of_the_supervision_and_of_what_is_custom(tmp_path):
    one = cut(supervision("a", gender="F", custom={"mood": "glad"}), custom={"mood": "none", "room": "hall"})

    _, (row,) = opened(write(tmp_path / "cuts.jsonl", one), further=("gender", "mood", "room", "other"))

    assert row.further == ("F", "glad", "hall", "")


def test_a_part_that_ends_where_the_recording_does_by_rounding_is_to_its_end(tmp_path):
    _, (row,) = opened(write(tmp_path / "cuts.jsonl", cut(start=0.5, duration=1.5004)))

    assert row.end is None


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (cut(type="MixedCut"), "it is a MixedCut, but only a MonoCut is read"),
        (cut(type="MultiCut"), "it is a MultiCut, but only a MonoCut is read"),
        (cut(recording=None), "features that Lhotse has stored are not read"),
        (
            cut(recording=recording(sources=[{"type": "command", "channels": [0], "source": "sph2pipe x"}])),
            'its source is of type "command", which is not run: give a file',
        ),
        (
            cut(recording=recording(sources=[{"type": "url", "channels": [0], "source": "there"}])),
            'its source is of type "url", which is not fetched: give a file',
        ),
        (
            cut(recording=recording(sources=[{"type": "file", "channels": [0, 1], "source": "a.wav"}])),
            "its file has 2 channels, but must have one",
        ),
        (cut(recording=recording(sources=[])), "its recording is in 0 sources, but must be in one file"),
        (cut(recording=recording(transforms=[{"name": "Speed", "kwargs": {"factor": 1.1}}])), "is changed"),
        (cut(supervision("half", -0.4, 1.0)), 'its supervision "s" is from -0.4 to 0.6 seconds, but the cut has 2'),
        (cut(start="soon"), "the cut is not as Lhotse writes it (ValueError"),
        ({"type": "MonoCut", "supervisions": [], "recording": {}}, "the cut is not as Lhotse writes it (KeyError"),
        (cut(recording=recording("../up.wav")), "leads out of"),
    ],
)
def test_what_is_not_read_is_a_bad_sample_with_its_reason(tmp_path, one, told):
    _, (good, bad) = opened(write(tmp_path / "cuts.jsonl", cut(supervision("a")), one))

    assert isinstance(good, Recording)
    assert isinstance(bad, Flaw)
    assert told in bad.reason


def test_lines_that_are_no_cuts_are_bad_alone(tmp_path):
    path = write(tmp_path / "cuts.jsonl", cut(supervision("a")))
    path.write_bytes(path.read_bytes() + b"{broken\n\xff\n[]\n")

    _, (_, *bad) = opened(path)

    assert [one.reason[:20] for one in bad] == ["invalid JSON (Expect", "the line is not UTF-", "the line is not a JS"]


def test_other_json_lines_are_read_as_before(tmp_path):
    (tmp_path / "plain.jsonl").write_text('{"path": "a.wav", "transcript": "so", "type": "clip"}\n')

    _, (row,) = opened(tmp_path / "plain.jsonl")

    assert row == Recording(tmp_path / "a.wav", "so")


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b"\n"))
    write(tmp_path / "cuts.jsonl", cut())
    (tmp_path / "table.csv").write_text("path,transcript\na.wav,so\n")

    with pytest.raises(DataError, match=r"bad\.jsonl\.gz cannot be read"):
        opened(tmp_path / "bad.jsonl.gz")
    with pytest.raises(DataError, match=r"empty\.jsonl\.gz is empty"):
        opened(tmp_path / "empty.jsonl.gz")
    with pytest.raises(DataError, match=r"data\.train names cuts of Lhotse and other files"):
        opened((tmp_path / "cuts.jsonl", tmp_path / "table.csv"))


def test_another_content_is_another_fingerprint_and_compression_changes_none(tmp_path):
    paths = [
        write(tmp_path / "a.jsonl", cut(supervision("a"))),
        write(tmp_path / "a.jsonl.gz", cut(supervision("a"))),
        write(tmp_path / "b.jsonl.gz", cut(supervision("b"))),
    ]

    one, packed, other = (opened(path)[0].fingerprint() for path in paths)

    assert one == packed != other


CONFIG = """
[task]
type = "speech_recognition"
[data]
train = ["cuts.jsonl.gz", "more.jsonl"]
[model]
type = "cnn"
d_model = 8
layers = 1
[train]
max_duration = "2 steps"
batch_size = 2
device = "cpu"
[log]
progress = false
tensorboard = false
"""


def test_a_run_trains_on_cuts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wave = np.random.default_rng(1).normal(size=2 * RATE).astype(np.float32) / 10
    soundfile.write("a.wav", wave, RATE)
    write(
        tmp_path / "cuts.jsonl.gz", cut(supervision("ab"), duration=1.0), cut(supervision("b"), start=1.0, duration=1.0)
    )
    write(tmp_path / "more.jsonl", cut(supervision("ba")))
    (tmp_path / "small.toml").write_text(CONFIG)

    assert main(["train", "small.toml"]) == 0

    assert "train 3 recordings" in capsys.readouterr().err
