"""The folder of checkpoints: at any moment complete or absent, and never a bad `latest`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from megagrow.checkpoint.store import CheckpointStore, read_state
from megagrow.errors import CheckpointError

ROOT = Path(__file__).parents[2]

COMMIT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from megagrow.checkpoint.store import CheckpointStore

def commit(folder, step, die_at):
    store = CheckpointStore(folder=folder, keep=2)
    partial = store.begin(0)
    (partial / "weights").write_bytes(bytes(1000))
    events = []

    def hook(event, arguments):
        if event.startswith(("os.", "shutil.")) or event == "open":
            events.append(event)
            if len(events) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    store.commit(partial, step, {"try": 2})

for line in sys.stdin:
    child = os.fork()
    if not child:
        commit(Path(sys.argv[1]), int(sys.argv[2]), int(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""For every number n read: commits a checkpoint in a process that ends by SIGKILL just before it
touches the file system for the n-th time."""


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(folder=tmp_path / "checkpoints", keep=2)


def _commit(store: CheckpointStore, step: int, size: int = 1000) -> Path:
    partial = store.begin(0)
    (partial / "weights").write_bytes(bytes(size))
    return store.commit(partial, step, {"try": 1})


def _names(store: CheckpointStore) -> list[str]:
    return [path.name for path in store.complete()]


def _kill_everywhere(store: CheckpointStore, step: int, allowed: set[tuple[int, int]]) -> set[int]:
    """Kills the commit of `step` at each of its moments in turn; the steps `latest` then named.

    Args:
        store: what was there before; as it was again afterwards.
        step: the step to commit.
        allowed: step and try that `latest` may name.
    """
    before = store.folder.with_name("before")
    shutil.copytree(store.folder, before)
    seen = set()
    for moment, code in enumerate(_killed_commits(store.folder, step), start=1):
        latest = store.latest()
        assert latest is not None
        state = read_state(latest)
        assert (state["step"], state["try"]) in allowed, moment
        seen.add(state["step"])
        assert len(store.complete()) == len(list(store.folder.glob("step_*")))
        for path in store.complete():
            assert read_state(path)["step"] == int(path.name.removeprefix("step_"))
        store.clean()
        assert not list(store.folder.glob(".partial-*"))
        _commit(store, step)
        assert read_state(store.folder / f"step_{step:08d}")["try"] == 1
        if code == 0:  # the commit touches the file system less often than that
            assert moment > 10
            return seen
        assert code == -signal.SIGKILL
        shutil.rmtree(store.folder)
        shutil.copytree(before, store.folder)
    raise AssertionError("the commit never came to its end")


def _killed_commits(folder: Path, step: int) -> Iterator[int]:
    """Exit codes of commits that are killed later and later."""
    words = [sys.executable, "-c", COMMIT_AND_DIE, str(folder), str(step)]
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as committer:
        assert committer.stdin is not None
        assert committer.stdout is not None
        for moment in range(1, 200):
            print(moment, file=committer.stdin, flush=True)
            yield int(committer.stdout.readline())


def test_killed_at_every_moment_of_a_commit_the_latest_checkpoint_is_good(
    store: CheckpointStore,
) -> None:
    for step in (1, 2):
        _commit(store, step)
    assert _kill_everywhere(store, 3, {(2, 1), (3, 2)}) == {2, 3}


def test_killed_at_every_moment_of_replacing_a_checkpoint_the_latest_one_is_good(
    store: CheckpointStore,
) -> None:
    for step in (1, 2):  # the run resumed step 1 and has come to step 2 again
        _commit(store, step)
    assert _kill_everywhere(store, 2, {(1, 1), (2, 1), (2, 2)}) == {1, 2}


def test_keeps_the_newest_and_names_the_last_written(store: CheckpointStore) -> None:
    for step in (2, 4, 6, 8):
        _commit(store, step)
    assert _names(store) == ["step_00000006", "step_00000008"]
    # A run that goes back does not delete what lies ahead of it, but that is not latest any more.
    _commit(store, 5)
    assert store.latest() == store.folder / "step_00000005"
    assert _names(store) == ["step_00000005", "step_00000006", "step_00000008"]


def test_keeping_one_deletes_it_only_after_the_next_is_complete(tmp_path: Path) -> None:
    store = CheckpointStore(folder=tmp_path, keep=1)
    _commit(store, 1)
    partial = store.begin(0)
    assert _names(store) == ["step_00000001"]
    store.commit(partial, 2, {})
    assert _names(store) == ["step_00000002"]


def test_steps_beyond_eight_digits_are_ordered_by_number(store: CheckpointStore) -> None:
    _commit(store, 99_999_999)
    _commit(store, 100_000_000)
    (store.folder / "latest").unlink()
    assert store.latest() == store.folder / "step_100000000"


def test_nothing_there_is_no_checkpoint(store: CheckpointStore) -> None:
    assert store.latest() is None
    store.clean()
    assert store.latest() is None
    assert store.complete() == []


def test_no_room_is_refused_before_anything_is_written(store: CheckpointStore) -> None:
    _commit(store, 1)
    with pytest.raises(CheckpointError, match=r"needs about 1000000000\.00 GB and .* are free"):
        store.begin(10**18)
    assert not list(store.folder.glob(".partial-*"))


@pytest.mark.parametrize("name", [b"step_00000007", b"../elsewhere", b"", b"\xff\xfe"])
def test_a_latest_that_names_nothing_says_what_is_there(
    store: CheckpointStore, name: bytes
) -> None:
    _commit(store, 1)
    (store.folder / "latest").write_bytes(name)
    with pytest.raises(CheckpointError, match=r"Complete ones: step_00000001; resume one with"):
        store.latest()


def test_a_file_that_is_missing_or_cut_short_is_named(store: CheckpointStore) -> None:
    path = _commit(store, 1)
    os.truncate(path / "weights", 10)
    with pytest.raises(CheckpointError, match=r"weights is 10 bytes long; it was .* 1000 bytes"):
        read_state(path)
    (path / "weights").unlink()
    with pytest.raises(CheckpointError, match=r"weights is missing.*--resume FOLDER"):
        read_state(path)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no state\.json"):
        read_state(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}", '{"format": 2}', "\x00"])
def test_a_damaged_state_is_one_clear_error(store: CheckpointStore, text: str) -> None:
    path = _commit(store, 1)
    (path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        read_state(path)


def test_one_changed_digit_in_the_state_is_noticed(store: CheckpointStore) -> None:
    path = _commit(store, 1)
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace('"try": 1', '"try": 3'))
    with pytest.raises(CheckpointError, match="checksum"):
        read_state(path)


def test_another_format_is_refused_by_its_number(store: CheckpointStore) -> None:
    path = _commit(store, 1)
    document = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(CheckpointError, match="has format 99"):
        read_state(path)
