"""Laws of alignments that travel in batches: found by the names of recordings, padded as these are."""

import math
import pickle
import shutil

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from etude.data.audio.reading import Listening
from etude.data.feeds.frame_targets import FrameTargets
from etude.data.files.manifests import Columns, open_manifest
from etude.data.files.skipped import Policy
from etude.data.store.alignment_writer import Aligned, write_alignments
from etude.data.store.alignments import AlignmentFacts, open_alignments
from etude.data.store.recordings import Wishes, prepare_recordings
from etude.data.store.sequences import sequence_ids
from etude.data.store.transcripts import Transcripts, fit_transcripts
from etude.data.tokens.config import CharConfig

FACTS = AlignmentFacts("ctc", 0, "labels", 0.01, 2)
CLASSES = {"a": [0, 1, 1], "b": [], "c": [2, 0, 2, 2, 2], "d": [4], "gone": [], "none": []}
NAMES = ["d", "b", "none", "c", "gone", "a"]
FRAMES = np.array([1, 0, 2, 5, 3, 3])


@pytest.fixture
def targets(tmp_path):
    """Those of six recordings, of which one has no path and one no alignment."""

    def align(sequences):
        return [Aligned(name, CLASSES[name], -math.inf if name == "none" else -1.0) for name in sequences]

    write_alignments(tmp_path / "align", FACTS, [["a", "b", "c"], ["d", "none"]], align)
    wanted = dict(zip(NAMES, FRAMES.tolist(), strict=True))
    found = open_alignments(tmp_path / "align", FACTS, wanted, max_missing=2)
    return FrameTargets.of(found, NAMES, FRAMES)


def test_classes_of_rows_are_padded_with_those_of_no_frame(targets):
    padded = targets.padded(np.array([3, 2, 5, 1, 4, 0, 3]))

    parts = [CLASSES["c"], [-1, -1], CLASSES["a"], [], [-1] * 3, CLASSES["d"], CLASSES["c"]]
    assert torch.equal(
        padded, pad_sequence([torch.tensor(p).long() for p in parts], batch_first=True, padding_value=-1)
    )


@pytest.mark.parametrize("row", range(6))
def test_a_row_alone_is_as_in_a_batch(targets, row):
    together = targets.padded(np.arange(6))

    assert torch.equal(targets.padded(np.array([row]))[0], together[row, : FRAMES[row]])


def test_no_rows_have_no_classes(targets):
    assert targets.padded(np.array([], dtype=np.int64)).shape == (0, 0)


def test_another_process_has_the_same(targets):
    other = pickle.loads(pickle.dumps(targets))  # noqa: S301 - our own

    assert torch.equal(other.padded(np.arange(6)), targets.padded(np.arange(6)))


LISTED = """path,transcript,start,end
a.wav,one,,
sub/a.wav,two,,
gone.wav,left out,,
a.wav,three,0.01,
a.wav,four,0.01,0.0625
gone.wav,left out,,
a.wav,five,,
a.wav,six,,0.0625
"""
CALLED = ["a.wav", "sub/a.wav", "a.wav 0.01-", "a.wav 0.01-0.0625", "a.wav #2", "a.wav 0.0-0.0625"]


def ids_in(folder, cache, listed):
    (folder / "sub").mkdir(parents=True)
    for name in ("a.wav", "sub/a.wav"):
        soundfile.write(folder / name, np.full(800, 0.5), 8000)
    (folder / "list.csv").write_text(listed)
    manifest = open_manifest(folder / "list.csv", columns=Columns())
    policy = Policy(on_bad_sample="skip", max_skipped="100%")
    tokenizer = fit_transcripts(CharConfig(), manifest, cache, policy)
    table = prepare_recordings(manifest, Transcripts(tokenizer), Wishes(Listening(8000)), cache, policy)
    return sequence_ids(table, manifest)


def test_recordings_are_called_by_their_place_wherever_the_folder_lies(tmp_path):
    here = ids_in(tmp_path / "here", tmp_path / "cache", LISTED)
    shutil.rmtree(tmp_path / "here")
    there = ids_in(tmp_path / "else/there", tmp_path / "cache", LISTED)

    assert here == there == CALLED


def test_recordings_are_called_the_same_in_another_order(tmp_path):
    head, *lines = LISTED.splitlines(keepends=True)
    lines = [line for line in lines if "five" not in line]

    found = ids_in(tmp_path / "here", tmp_path / "cache", "".join([head, *reversed(lines)]))

    assert found == [name for name in reversed(CALLED) if "#" not in name]
