"""Saving a live model without stopping it for longer than it takes to copy its state."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue, AsyncRequest

from megagrow.checkpoint import integrity, sharded
from megagrow.checkpoint.guard import guarded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.checkpoint.store import CheckpointStore
from megagrow.errors import CheckpointError
from megagrow.runtime import failure, orphans, processes

_MEND = (
    "The last complete checkpoint is intact; mend the cause (often a full or read-only disk) and "
    "start the run again."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """A checkpoint that is complete on disk."""

    path: Path
    """Its folder."""

    step: int
    """The step it was taken at."""

    state: Mapping[str, Any]
    """What was saved with it."""

    seconds: float
    """From the call of `save` to the rename."""

    blocking: bool
    """Whether training waited for it."""


class CheckpointWriter:
    """Saves to a store, in the background or at once; every method is called on every rank."""

    def __init__(
        self, store: CheckpointStore, *, asynchronous: bool, on_saved: Callable[[Saved], None]
    ) -> None:
        self._store = store
        self._asynchronous = asynchronous
        self._on_saved = on_saved
        self._queue = AsyncCallsQueue()
        self._partial: Path | None = None
        with failure.together(), guarded(store.folder, "opening the folder", _MEND):
            if processes.is_main():
                store.clean()

    def save(
        self,
        model: TrainedModel,
        step: int,
        state: Mapping[str, Any],
        *,
        needed_bytes: int,
        blocking: bool = False,
    ) -> None:
        """Saves the model and `state` (JSON types) as the checkpoint of `step`.

        Raises:
            CheckpointError: no room, or the previous or (if blocking) this save failed.
        """
        self.wait()  # one save at a time: two would double the host memory
        begun = time.monotonic()
        partial = self._partial = self._begin(needed_bytes)
        blocking = blocking or not self._asynchronous

        def finish() -> None:
            with failure.together(), guarded(self._store.folder, "saving", _MEND):
                if processes.is_main():
                    path = self._store.commit(partial, step, state)
                    seconds = time.monotonic() - begun
                    self._on_saved(
                        Saved(path=path, step=step, state=state, seconds=seconds, blocking=blocking)
                    )
            self._partial = None

        with self._saving():
            request = _with_checksums(sharded.save_request(model, partial), partial)
            request.add_finalize_fn(finish)
            if blocking:
                request.execute_sync()
            else:
                self._queue.schedule_async_request(request)

    def poll(self) -> None:
        """Completes a background save if its files are written; call after every step."""
        with self._saving():
            self._queue.maybe_finalize_async_calls(blocking=False)

    def wait(self) -> None:
        """Completes a background save, however long it takes."""
        with self._saving():
            self._queue.maybe_finalize_async_calls(blocking=True)

    def close(self) -> None:
        """Completes what is under way and ends the helper processes."""
        self.wait()
        self._queue.close()

    def abandon(self) -> None:
        """Ends a background save that will not be completed; for a rank that fails, maybe alone."""
        for call in self._queue.async_calls:
            writer = getattr(call.async_caller, "process", None)
            if writer is None:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself meanwhile
                for each in psutil.Process(writer.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            writer.kill()
            writer.join()

    def _begin(self, needed_bytes: int) -> Path:
        folder = Path()
        with failure.together(), guarded(self._store.folder, "saving", _MEND):
            if processes.is_main():
                folder = self._store.begin(needed_bytes)
        return processes.broadcast_object(folder)

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            with guarded(self._store.folder, "saving", _MEND):
                yield
        except CheckpointError:
            # A full disk needs the room at once, not at the next start.
            if processes.is_main() and self._partial is not None:
                self._store.discard(self._partial)
            raise


def _with_checksums(request: AsyncRequest, folder: Path) -> AsyncRequest:
    """The same request, which notes the checksums of this rank's files once they are written."""
    write = request.async_fn
    if write is None:  # this rank has nothing to write
        return request
    pattern = f"__{processes.rank()}_*"  # torch's name for the files of one rank
    return request._replace(async_fn=functools.partial(_write, write, folder, pattern, os.getpid()))


def _write(
    write: Callable[..., None],
    folder: Path,
    pattern: str,
    trainer: int,
    *args: Any,
    **kwargs: Any,
) -> None:
    writer = os.getpid()
    if writer != trainer:
        # What a killed trainer was saving is lost: its writer, and the writers that one forks,
        # would only hold memory and the disk.
        orphans.end_with_parent(trainer)
        os.register_at_fork(after_in_child=lambda: orphans.end_with_parent(writer))
    write(*args, **kwargs)
    integrity.note(folder, pattern)
