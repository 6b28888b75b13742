import json

import pytest

from etude.base.errors import DataError
from etude.data.files.lines import Flaw
from etude.data.files.manifests import Columns, Recording, open_manifest


def written(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def opened(path, **options):
    return open_manifest(path, columns=options.pop("columns", Columns()), **options)


def rows(manifest):
    return list(manifest.rows(0, len(manifest)))


CSV = 'path,start,end,transcript,speaker\na.wav,0.5,1.25,"one, two",ann\nb/c.flac,,,three,bob\n'
TSV = "path\tstart\tend\ttranscript\tspeaker\na.wav\t0.5\t1.25\tone, two\tann\nb/c.flac\t\t\tthree\tbob\n"
JSON = (
    '{"path": "a.wav", "start": 0.5, "end": 1.25, "transcript": "one, two", "speaker": "ann"}\n'
    '{"path": "b/c.flac", "transcript": "three", "speaker": "bob"}\n'
)


@pytest.mark.parametrize(("name", "text"), [("m.csv", CSV), ("m.tsv", TSV), ("m.jsonl", JSON)])
def test_tables_and_json_lines_list_the_same_recordings(tmp_path, name, text):
    manifest = opened(written(tmp_path, name, text))

    assert rows(manifest) == [
        Recording(tmp_path / "a.wav", "one, two", 0.5, 1.25, "ann"),
        Recording(tmp_path / "b/c.flac", "three", 0.0, None, "bob"),
    ]


def test_columns_may_be_called_otherwise(tmp_path):
    path = written(tmp_path, "m.csv", "file,said,from,to\na.wav,one,1,2\n")

    manifest = opened(path, columns=Columns("file", "said", "from", "to", "who"))

    assert rows(manifest) == [Recording(tmp_path / "a.wav", "one", 1.0, 2.0)]


def test_a_transcript_may_be_empty(tmp_path):
    manifest = opened(written(tmp_path, "m.csv", "path,transcript\na.wav,\n"))

    assert rows(manifest) == [Recording(tmp_path / "a.wav", "")]


def test_further_columns_are_kept(tmp_path):
    manifest = opened(written(tmp_path, "m.csv", "path,transcript,room\na.wav,one,kitchen\n"))

    assert manifest.has_column("room")
    assert not manifest.has_column("mood")
    assert list(manifest.column("room", 0, 1)) == ["kitchen"]


@pytest.mark.parametrize("start", ["soon", "1,5", "true"])
def test_a_time_that_is_no_number_is_a_flaw_of_its_line(tmp_path, start):
    row = json.dumps({"path": "a.wav", "start": start, "transcript": "one"})
    manifest = opened(written(tmp_path, "m.jsonl", row + "\n"))

    [flaw] = rows(manifest)

    assert isinstance(flaw, Flaw)
    assert flaw.reason == f'start must be a number of seconds, but is "{start}"'
    assert manifest.location(0).endswith("m.jsonl, line 1")


@pytest.mark.parametrize("path", ["../a.wav", "/etc/passwd", "b/../../a.wav"])
def test_a_path_does_not_lead_out_of_its_root(tmp_path, path):
    manifest = opened(written(tmp_path, "in/m.csv", f"path,transcript\n{path},one\n"))

    [flaw] = rows(manifest)

    assert "leads out of" in flaw.reason
    assert "data.root" in flaw.reason


def test_a_root_may_be_given(tmp_path):
    manifest = opened(written(tmp_path, "in/m.csv", "path,transcript\n../a.wav,one\n"), root=tmp_path)

    assert rows(manifest) == [Recording(tmp_path / "a.wav", "one")]


def kaldi(folder, **files):
    files = {"wav.scp": "r1 one.wav\nr2 two.flac\n", "text": "u1 well said\nu2 again\n", **files}
    for name, text in files.items():
        written(folder, name.replace("_", "."), text)
    return folder


def test_a_kaldi_folder_is_read_with_its_segments_and_speakers(tmp_path):
    segments = "u1 r1 0.5 1.5\nu2 r2 0 -1\n"
    folder = kaldi(tmp_path, segments=segments, utt2spk="u1 ann\nu2 bob\n")

    assert rows(opened(folder)) == [
        Recording(tmp_path / "one.wav", "well said", 0.5, 1.5, "ann"),
        Recording(tmp_path / "two.flac", "again", 0.0, None, "bob"),
    ]


def test_without_segments_an_utterance_is_a_recording(tmp_path):
    folder = kaldi(tmp_path, text="r1 well said\nr2\n")

    assert rows(opened(folder)) == [
        Recording(tmp_path / "one.wav", "well said"),
        Recording(tmp_path / "two.flac", ""),
    ]


def test_a_command_in_wav_scp_is_never_run(tmp_path):
    proof = tmp_path / "ran"
    folder = kaldi(tmp_path, text="r1 well\n")
    (folder / "wav.scp").write_text(f"r1 touch {proof} |\n")

    [flaw] = rows(opened(folder))

    assert "a command" in flaw.reason
    assert not proof.exists()


def test_what_a_kaldi_folder_lacks_is_named(tmp_path):
    folder = kaldi(tmp_path, segments="u1 r9 0 1\n")

    first, second = rows(opened(folder))
    (folder / "wav.scp").unlink()
    with pytest.raises(DataError) as refused:
        opened(folder)

    assert first.reason == 'wav.scp has no recording "r9"'
    assert second.reason == 'segments has no recording, start and end for "u2"'
    assert "has no wav.scp" in str(refused.value)


def test_folders_and_files_do_not_mix(tmp_path):
    folder, table = kaldi(tmp_path / "k"), written(tmp_path, "m.csv", CSV)

    with pytest.raises(DataError, match="folders of Kaldi's files alone, or manifests alone"):
        opened([folder, table])


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    one = opened(written(tmp_path, "a/m.csv", CSV)).fingerprint()

    assert opened(written(tmp_path, "b/m.csv", CSV)).fingerprint() == one
    assert opened(written(tmp_path, "c/m.csv", CSV.replace("three", "four"))).fingerprint() != one
    assert opened(kaldi(tmp_path / "k")).fingerprint() != one
