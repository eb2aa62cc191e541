"""Growth through megatron-core's distributed checkpoint format: the reference for `in_memory`.

The old model is written to a scratch folder and the new one, under any layout, reads each layer
from the one it grows from. The processes stay; only their parallel groups change.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from megagrow.checkpoint.guard import guarded
from megagrow.errors import CheckpointError, LayoutError
from megagrow.growth.cost import GrowthCost, growth_cost
from megagrow.runtime import device, failure, processes
from megagrow.runtime.stopwatch import Stopwatch

SCRATCH_PREFIX = ".growth-"

_MEND = (
    "Checkpoints from before the growth are intact; make room or set checkpoint.growth_scratch to "
    "another folder, and start the run again."
)


def grow(
    write: Callable[[Path], None],
    read: Callable[[Path], None],
    *,
    scratch: Path,
    needed_bytes: int = 0,
) -> GrowthCost:
    """Carries a live model over into another one; call on every rank.

    Args:
        write: saves the old model to a folder (`checkpoint.sharded.save`) and frees it.
        read: builds the new model and fills it from that folder (`checkpoint.sharded.load` with
            a growth plan).
        scratch: folder that every process sees; a folder of its own is made in it and removed.
        needed_bytes: about what `write` writes; nothing is written where there is no room for it.

    Raises:
        CheckpointError: the scratch folder cannot be written, for example for lack of room.
        LayoutError: a process does not see it.
    """
    begun = time.monotonic()
    device.reset_memory_peak()
    watch = Stopwatch()
    folder = _make(scratch, needed_bytes)
    try:
        with guarded(folder, "growing", _MEND):
            with watch.phase("write"):
                write(folder)
            kept = device.memory_bytes()
            moved = failure.on_main(lambda: _size(folder))
            with watch.phase("read"):
                read(folder)
        processes.barrier()
    finally:
        if processes.is_main():
            shutil.rmtree(folder, ignore_errors=True)
    return growth_cost(
        seconds=time.monotonic() - begun,
        phases=watch.seconds,
        bytes_moved=moved,
        kept_bytes=kept,
    )


def clean(scratch: Path) -> None:
    """Removes what a process killed during growth left behind; for rank 0."""
    for entry in scratch.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(entry, ignore_errors=True)


def check_scratch(scratch: Path, *, needed_bytes: int) -> None:
    """Finds out, before the first step, whether growth can go through a folder; on every rank.

    Args:
        scratch: as for `grow`.
        needed_bytes: what the largest growth writes.

    Raises:
        CheckpointError: rank 0 cannot write there, or has no room.
        LayoutError: another process does not see what rank 0 makes there, or cannot write.
    """
    folder = _make(scratch, needed_bytes)
    if processes.is_main():  # all have looked
        shutil.rmtree(folder, ignore_errors=True)


def _make(scratch: Path, needed_bytes: int) -> Path:
    def make() -> Path:
        folder = scratch / f"{SCRATCH_PREFIX}{secrets.token_hex(6)}"
        try:
            folder.mkdir(parents=True)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise CheckpointError(
                f"{scratch}: growth cannot write there: {error}. Set checkpoint.growth_scratch to "
                "a folder every process can write."
            ) from error
        if free < needed_bytes:
            shutil.rmtree(folder, ignore_errors=True)
            raise CheckpointError(
                f"{scratch}: growth needs about {needed_bytes / 1e9:.2f} GB there and "
                f"{free / 1e9:.2f} GB are free. {_MEND}"
            )
        return folder

    folder = failure.on_main(make)
    try:
        with failure.together():
            _check_visible(folder)
    except LayoutError:
        if processes.is_main():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _check_visible(folder: Path) -> None:
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LayoutError(
            f"{folder.parent}: what rank 0 makes there, rank {processes.rank()} on "
            f"{socket.gethostname()} does not see or cannot write to. Growth goes through this "
            "folder: set checkpoint.growth_scratch to one that is visible to every process, on a "
            "file system that all machines share."
        )


def _size(folder: Path) -> int:
    """Bytes in a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
