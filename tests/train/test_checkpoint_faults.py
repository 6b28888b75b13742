"""A save that is killed or fails at any storage call leaves a whole checkpoint, and the next start puts all right."""

import errno
import shutil

import faulty
import pytest
from saves import assert_whole, begun, best_of, gone_on, save, save_in, store_in, tree

from etude.base.errors import StorageError

NEXT = 3
"""The save that meets the fault: it is the best so far, so that both links move and old folders go."""


@pytest.fixture(scope="module")
def before(quick_folder):
    """A store with two saves."""
    begun(quick_folder / "before").close()
    return quick_folder / "before"


@pytest.fixture(scope="module")
def straight(quick_folder):
    """What the folder holds after each save where nothing went wrong."""
    store = begun(quick_folder / "straight")
    trees = {2: tree(store.folder)}
    for step in (3, 4):
        save(store, step)
        trees[step] = tree(store.folder)
    store.close()
    return trees


@pytest.fixture(scope="module")
def calls(before, quick_folder):
    """The storage calls of the save."""
    shutil.copytree(before, quick_folder / "counted", symlinks=True)
    with faulty.storage() as storage:
        save_in(quick_folder / "counted", NEXT)
    return storage.names


def copies(before, folder, calls):
    """For each storage call: its number, and the folder as it was before the save, a neighbour beside it."""
    for number in range(1, len(calls) + 1):
        place = folder / f"{number}"
        (place / "neighbour").mkdir(parents=True)
        (place / "neighbour" / "file").write_text("untouched")
        shutil.copytree(before, place / "checkpoints", symlinks=True)
        yield number, place
        assert tree(place / "neighbour") == {"file": b"untouched"}
        assert sorted(path.name for path in place.iterdir()) == ["checkpoints", "neighbour"]
        shutil.rmtree(place)


def test_a_save_makes_every_kind_of_storage_call(calls):
    assert set(calls) >= {"mkdir", "open", "write", "fsync", "rename", "symlink", "replace", "unlink", "rmdir"}
    assert len(calls) > 40


@pytest.mark.parametrize("how", [faulty.BEFORE, faulty.HALF, faulty.AFTER])
def test_a_save_killed_at_any_storage_call_loses_nothing(how, before, straight, calls, quick_folder, nursery):
    for number, place in copies(before, quick_folder / f"killed {how}", calls):
        folder = place / "checkpoints"
        fault = {"storage_call": number, "how": how}
        log = quick_folder / f"{how}.log"
        code = nursery.run("saves:save_in", str(folder), NEXT, log=log, fault=fault)
        assert code == -9, (number, log.read_text())

        assert_whole(store_in(folder))
        store, step = gone_on(folder)
        assert step in {2, 3}
        assert tree(folder) == straight[step], (number, calls[number - 1])
        if step == 2:
            save(store, 3)
        save(store, 4)
        store.close()
        assert tree(folder) == straight[4], (number, calls[number - 1])


def sentence_of(store):
    """What a failed save says; None where it did not fail."""
    try:
        save(store, NEXT)
    except StorageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("code", ["ENOSPC", "EIO", "EROFS"])
def test_a_save_that_fails_at_any_storage_call_leaves_the_older_ones_and_the_next_save_works(
    code, lasting, before, straight, calls, quick_folder
):
    failures = 0
    for number, place in copies(before, quick_folder / f"failed {code} {lasting}", calls):
        folder = place / "checkpoints"
        with faulty.storage(nth=number, errno=getattr(errno, code), lasting=lasting):
            store = store_in(folder)
            said = sentence_of(store)
        if said is not None:
            failures += 1
            assert str(folder) in said
            if code == "ENOSPC" and "write" in said:
                assert "it needs" in said
                assert "are free" in said

        assert_whole(store_in(folder))
        save(store, 4)
        store.close()
        assert_whole(store)
        assert store.steps()[-1] == 4
        assert store.link("last").name == "step-00000004"
        assert store.link("best").name in {f"step-0000000{best_of(step)}" for step in (2, 3)}
    # The last calls remove older checkpoints, which may wait.
    assert failures >= len(calls) - calls[::-1].index("symlink")
