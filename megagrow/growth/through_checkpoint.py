"""Growth through megatron-core's distributed checkpoint format: the reference path.

The old model is written to a scratch folder and the new one, under any layout, reads each layer
from the one it grows from. The processes stay; only their parallel groups change.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megagrow.checkpoint.guard import guarded
from megagrow.errors import CheckpointError
from megagrow.runtime import device, processes

SCRATCH_PREFIX = ".growth-"

_MEND = (
    "The checkpoint from before the growth is intact; make room or set checkpoint.growth_scratch "
    "to another folder, and start the run again."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthCost:
    """What one growth took."""

    seconds: float
    """From the last step of the old model to the new one being ready."""

    bytes_moved: int
    """Bytes written to the scratch folder; about as many are read, once per stacked copy."""

    peak_bytes: int
    """Highest memory use on rank 0 meanwhile (see `runtime.device.memory_peak_bytes`)."""


def grow(
    write: Callable[[Path], None], read: Callable[[Path], None], *, scratch: Path
) -> GrowthCost:
    """Carries a live model over into another one; call on every rank.

    Args:
        write: saves the old model to a folder (`checkpoint.sharded.save`) and frees it.
        read: builds the new model and fills it from that folder (`checkpoint.sharded.load` with
            a growth plan).
        scratch: folder that every process sees; a folder of its own is made in it and removed.

    Raises:
        CheckpointError: the scratch folder cannot be written, for example for lack of room.
    """
    begun = time.monotonic()
    device.reset_memory_peak()
    folder = _make(scratch)
    try:
        with guarded(folder, "growing", _MEND):
            write(folder)
            moved = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            read(folder)
        processes.barrier()
    finally:
        if processes.is_main():
            shutil.rmtree(folder, ignore_errors=True)
    return GrowthCost(
        seconds=time.monotonic() - begun,
        bytes_moved=moved,
        peak_bytes=device.memory_peak_bytes(),
    )


def clean(scratch: Path) -> None:
    """Removes what a process killed during growth left behind; for rank 0."""
    for entry in scratch.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(entry, ignore_errors=True)


def _make(scratch: Path) -> Path:
    folder: Path | OSError | None = None
    if processes.is_main():
        try:
            folder = scratch / f"{SCRATCH_PREFIX}{secrets.token_hex(6)}"
            folder.mkdir(parents=True)
        except OSError as error:
            folder = error
    folder = processes.broadcast_object(folder)
    if isinstance(folder, Path):
        return folder
    raise CheckpointError(
        f"{scratch}: growth cannot write there: {folder}. Set checkpoint.growth_scratch to a "
        "folder every process can write."
    )
