"""A lock that two processes cannot hold at once, and that a killed one does not keep."""

from __future__ import annotations

import fcntl
import functools
import io
import logging
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""Seconds to wait for a process that is about to end."""

_POLL_S = 0.2


class LockedError(Exception):
    """Another process has the lock; the text says which, as it described itself."""


@contextmanager
def hold(file: Path, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Holds the lock `file` inside the block, and has the file say who does.

    The kernel lets go of it when this process ends, however it ends: processes that it forks close
    theirs, those that it starts never have it. Where the file system knows no `flock`, the block
    runs without a lock, after a warning.

    Raises:
        LockedError: another process still holds it after `patience_s` seconds.
        OSError: the file cannot be made.
    """
    with io.FileIO(file, "a+") as stream:
        os.register_at_fork(after_in_child=functools.partial(_forget, weakref.ref(stream)))
        if _acquire(stream, patience_s):
            stream.truncate(0)
            stream.write(_myself().encode())
        yield


def _acquire(stream: io.FileIO, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(stream.fileno(), 1000, 0).decode(errors="replace").strip()
                raise LockedError(holder or "unknown") from None
            time.sleep(_POLL_S)
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): nothing keeps a second run from writing there too",
                stream.name,
                error.strerror,
            )
            return False


def _forget(stream: weakref.ref[io.FileIO]) -> None:
    """Closes a forked process's copy, which would keep the lock when its parent is gone."""
    found = stream()
    if found is not None:
        found.close()


def _myself() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f"pid {os.getpid()} on {socket.gethostname()}{f', Slurm job {job}' if job else ''}\n"
