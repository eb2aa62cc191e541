"""The lock of a folder: one holder, named to the others, and gone with its process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megagrow.runtime import lock

ROOT = Path(__file__).parents[2]

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from megagrow.runtime import lock

with lock.hold(Path(sys.argv[1]), patience_s=0.0):
    if os.fork() == 0:
        time.sleep(600)  # a writer that its trainer leaves behind
    subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, close_fds=False)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with _holder(file) as process:
        begun = time.monotonic()
        with pytest.raises(lock.LockedError) as caught, lock.hold(file, patience_s=0.5):
            pass
        assert 0.5 <= time.monotonic() - begun < 10.0
        assert str(caught.value) == f"pid {process.pid} on {socket.gethostname()}"


def test_a_killed_holder_loses_it_though_its_children_live(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with _holder(file) as process:
        process.kill()
        process.wait()
        with lock.hold(file, patience_s=1.0):
            assert f"pid {os.getpid()} " in file.read_text()
        os.killpg(process.pid, 0)  # the children are still there


def test_a_holder_that_ends_soon_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with _holder(file) as process:
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -9 {process.pid}"])
        with lock.hold(file, patience_s=30.0):
            assert killer.wait() == 0


def test_the_lock_can_be_taken_again_after_the_block_also_by_this_process(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), lock.hold(file, patience_s=0.0):
            with pytest.raises(lock.LockedError), lock.hold(file, patience_s=0.0):
                pass
            raise ZeroDivisionError


def test_a_fork_after_the_block_closes_no_other_file(tmp_path: Path) -> None:
    with lock.hold(tmp_path / ".lock", patience_s=0.0):
        pass
    with (tmp_path / "other").open("w") as other:  # likely under the same number
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                os.fstat(other.fileno())
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_without_flock_there_is_a_warning_and_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    entered = False
    with caplog.at_level(logging.WARNING), lock.hold(tmp_path / ".lock"):
        entered = True
    assert entered
    assert "cannot be locked (Function not implemented)" in caplog.text
    assert str(tmp_path) in caplog.text
