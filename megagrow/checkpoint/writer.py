"""Saving a live model without stopping it for longer than it takes to copy its state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from torch.distributed.checkpoint.api import CheckpointException

from megagrow.checkpoint import sharded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.checkpoint.store import CheckpointStore
from megagrow.errors import CheckpointError, MegagrowError
from megagrow.runtime import processes


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
        if processes.is_main():
            store.clean()
        processes.barrier()

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
        partial = self._begin(needed_bytes)
        blocking = blocking or not self._asynchronous

        def finish() -> None:
            if processes.is_main():
                path = self._store.commit(partial, step, state)
                seconds = time.monotonic() - begun
                self._on_saved(
                    Saved(path=path, step=step, state=state, seconds=seconds, blocking=blocking)
                )
            processes.barrier()

        with _clear_error(partial):
            request = sharded.save(model, partial, asynchronous=not blocking)
            if request is None:
                finish()
            else:
                request.add_finalize_fn(finish)
                self._queue.schedule_async_request(request)

    def poll(self) -> None:
        """Completes a background save if its files are written; call after every step."""
        with _clear_error(self._store.folder):
            self._queue.maybe_finalize_async_calls(blocking=False)

    def wait(self) -> None:
        """Completes a background save, however long it takes."""
        with _clear_error(self._store.folder):
            self._queue.maybe_finalize_async_calls(blocking=True)

    def close(self) -> None:
        """Completes what is under way and ends the helper processes."""
        self.wait()
        self._queue.close()

    def _begin(self, needed_bytes: int) -> Path:
        found: Path | MegagrowError | None = None
        if processes.is_main():
            try:
                found = self._store.begin(needed_bytes)
            except MegagrowError as error:  # all ranks must stop together
                found = error
            except OSError as error:
                found = CheckpointError(f"{self._store.folder}: {error}")
        found = processes.broadcast_object(found)
        if isinstance(found, Path):
            return found
        raise found if found else CheckpointError(f"{self._store.folder}: no folder was made")


@contextmanager
def _clear_error(where: Path) -> Iterator[None]:
    """Turns what megatron-core raises when a save fails into one clear error."""
    try:
        yield
    # torch's CheckpointException derives from BaseException.
    except (OSError, CheckpointException, CheckpointingException) as error:
        raise CheckpointError(
            f"{where}: saving failed: {error}. The last complete checkpoint is intact; mend the "
            "cause (often a full or read-only disk) and start the run again."
        ) from error
