import json

import numpy as np
import pytest
import soundfile

from etude.base.errors import DataError
from etude.data.audio.reading import Listening
from etude.data.files.manifests import Columns, open_manifest
from etude.data.files.skipped import BadSampleError, Policy, write_skipped
from etude.data.store.recordings import (
    GROUP,
    PATH,
    SAMPLES,
    SPEAKER,
    TARGET,
    WAVE,
    Waves,
    Wishes,
    folder_of,
    prepare_recordings,
    rate_of,
    seconds_of,
)
from etude.data.store.transcripts import Transcripts, fit_transcripts
from etude.data.tokens.config import CharConfig

RATE = 8000
SAID = ["one", "two two", "", "three"]
LEAVE_OUT = Policy(on_bad_sample="skip", max_skipped="100%")
KEPT, READ = Wishes(Listening(RATE)), Wishes(Listening(RATE), keep=False)


def wave_of(number):
    return np.random.default_rng(number).uniform(-0.5, 0.5, 400 + 100 * number).astype(np.float32)


def manifest_in(folder, said=SAID, **changes):
    folder.mkdir(exist_ok=True, parents=True)
    lines = []
    for number, text in enumerate(said):
        soundfile.write(folder / f"{number}.wav", wave_of(number), RATE, subtype="FLOAT")
        lines.append({"path": f"{number}.wav", "transcript": text, "speaker": f"s{number % 2}", **changes})
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_manifest(folder / "m.jsonl", columns=Columns())


def tokenizer_of(manifest, cache):
    return fit_transcripts(CharConfig(), manifest, cache, Policy())


def prepared(manifest, cache, wishes=KEPT, policy=Policy(), most=None):  # noqa: B008 - frozen
    return prepare_recordings(manifest, Transcripts(tokenizer_of(manifest, cache), most), wishes, cache, policy)


@pytest.mark.parametrize("wishes", [KEPT, READ])
def test_waves_are_the_same_kept_or_read(tmp_path, wishes):
    manifest = manifest_in(tmp_path / "in")

    table = prepared(manifest, tmp_path / "cache", wishes)

    order = np.array([3, 0, 1, 1, 2])
    waves = Waves(table, wishes.listening, tmp_path / "in").of(order)
    assert (WAVE in table.columns) == wishes.keep
    assert all(np.array_equal(wave, wave_of(number)) for wave, number in zip(waves, order, strict=True))
    assert table.values(SAMPLES, order).tolist() == [len(wave) for wave in waves]
    assert table.texts(SPEAKER, order) == ["s1", "s0", "s1", "s1", "s0"]
    assert table.texts(PATH, order[:1]) == ["3.wav"]


def test_transcripts_are_tokens_and_may_be_none(tmp_path):
    manifest = manifest_in(tmp_path / "in")
    tokenizer = tokenizer_of(manifest, tmp_path / "cache")

    ids, lengths = prepared(manifest, tmp_path / "cache").gather(TARGET, np.arange(4))

    assert lengths.tolist() == [3, 7, 0, 5]
    assert tokenizer.decode(ids) == "onetwo twothree"


def test_the_same_content_is_read_once(tmp_path):
    first = prepared(manifest_in(tmp_path / "in"), tmp_path / "cache")
    for file in (tmp_path / "in").iterdir():
        file.write_bytes(file.read_bytes())

    again = prepared(open_manifest(tmp_path / "in" / "m.jsonl", columns=Columns()), tmp_path / "cache")
    assert again.folder == first.folder


def test_a_recording_that_changed_is_read_again(tmp_path):
    first = prepared(manifest_in(tmp_path / "in"), tmp_path / "cache")
    manifest = manifest_in(tmp_path / "in")
    soundfile.write(tmp_path / "in/1.wav", wave_of(9), RATE, subtype="FLOAT")

    second = prepared(manifest, tmp_path / "cache")

    assert second.fingerprint != first.fingerprint
    assert np.array_equal(Waves(second, KEPT.listening, tmp_path / "in").of(np.array([1]))[0], wave_of(9))


def damage(folder):
    (folder / "0.wav").write_text("no audio")
    (folder / "2.wav").unlink()


@pytest.mark.parametrize("wishes", [KEPT, READ])
def test_bad_recordings_end_the_preparation_with_their_place(tmp_path, wishes):
    manifest = manifest_in(tmp_path / "in")
    damage(tmp_path / "in")

    with pytest.raises(BadSampleError, match=r"m\.jsonl, line 1: .*is not audio that can be read"):
        prepared(manifest, tmp_path / "cache", wishes)


@pytest.mark.parametrize("wishes", [KEPT, READ])
def test_bad_recordings_are_left_out_and_listed_where_asked_for(tmp_path, wishes):
    manifest = manifest_in(tmp_path / "in")
    damage(tmp_path / "in")

    table = prepared(manifest, tmp_path / "cache", wishes, LEAVE_OUT)
    write_skipped(tmp_path / "skipped.jsonl", [(table, manifest)])

    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert len(table) == 2
    assert [line["line"] for line in listed] == [1, 3]
    assert "does not exist" in listed[1]["reason"]
    assert [table.origin(row) for row in range(2)] == [1, 3]


def test_more_bad_ones_than_allowed_are_an_error(tmp_path):
    manifest = manifest_in(tmp_path / "in")
    damage(tmp_path / "in")

    with pytest.raises(DataError, match=r"2 of 4 samples .* cannot be used, but data\.max_skipped allows 1"):
        prepared(manifest, tmp_path / "cache", KEPT, Policy(on_bad_sample="skip", max_skipped=1))


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(Listening(RATE), least_samples=450), "400 samples, fewer than one window of 450"),
        (Wishes(Listening(RATE), most_seconds=0.049), "0.05 seconds, more than data.max_seconds = 0.049"),
        (Wishes(Listening(16000)), "8,000 samples a second, but 16,000 are expected"),
    ],
)
def test_length_and_rate_are_checked_by_the_header_alone(tmp_path, wishes, said):
    manifest = manifest_in(tmp_path / "in")

    with pytest.raises(BadSampleError, match=said):
        prepared(manifest, tmp_path / "cache", wishes._replace(keep=False))


def test_a_transcript_that_is_too_long_is_a_bad_sample(tmp_path):
    manifest = manifest_in(tmp_path / "in")

    with pytest.raises(BadSampleError, match="line 2: the transcript has 7 tokens"):
        prepared(manifest, tmp_path / "cache", most=6)


def test_what_metrics_are_by_stands_beside_the_recordings_that_are_good(tmp_path):
    manifest_in(tmp_path)
    manifest = open_manifest(tmp_path / "m.jsonl", columns=Columns(further=("speaker",)))
    targets = Transcripts(tokenizer_of(manifest, tmp_path / "cache"), 3, grouped=True)

    table = prepare_recordings(manifest, targets, KEPT, tmp_path / "cache", LEAVE_OUT)

    assert [table.origin(row) for row in range(len(table))] == [0, 2]
    assert table.texts(GROUP, np.arange(len(table))) == ["s0", "s0"]


def test_an_end_before_its_start_names_the_line(tmp_path):
    manifest = manifest_in(tmp_path / "in", start=0.04, end=0.01)

    with pytest.raises(BadSampleError, match="line 1: start must be 0 or more and not behind end"):
        prepared(manifest, tmp_path / "cache")


def test_a_file_that_vanishes_later_is_said_to_be_gone(tmp_path):
    table = prepared(manifest_in(tmp_path / "in"), tmp_path / "cache", READ)
    (tmp_path / "in/1.wav").unlink()

    with pytest.raises(DataError, match=r"cannot be used any more: .* does not exist"):
        Waves(table, READ.listening, tmp_path / "in").of(np.array([1]))


def test_a_corpus_that_was_moved_is_read_where_it_lies_now(tmp_path):
    table = prepared(manifest_in(tmp_path / "in"), tmp_path / "cache", READ)
    (tmp_path / "in").rename(tmp_path / "moved")

    moved = open_manifest(tmp_path / "moved/m.jsonl", columns=Columns())

    again = prepared(moved, tmp_path / "cache", READ)
    [wave] = Waves(again, READ.listening, folder_of(moved)).of(np.array([1]))
    assert again.fingerprint == table.fingerprint
    assert np.array_equal(wave, wave_of(1))


def test_rate_and_length_of_a_manifest_come_from_headers(tmp_path):
    manifest = manifest_in(tmp_path / "in")
    (tmp_path / "in/0.wav").write_text("no audio")

    assert rate_of(manifest) == RATE
    assert seconds_of(manifest, 60.0) == pytest.approx(sum(len(wave_of(number)) for number in (1, 2, 3)) / RATE)
