"""Helper processes that end when the process that started them ends, however it ended.

Imports nothing heavy: a helper process imports this module and little else.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.context import SpawnContext
from multiprocessing.managers import SyncManager
from multiprocessing.reduction import ForkingPickler
from typing import Any

_POLL_S = 0.5


class OpaqueQueue:
    """A manager's queue that passes objects on as bytes.

    A manager unpickles what goes through its queue: for what megatron-core puts there it would
    import torch first, seconds in which the first save waits, and hold it from then on.
    """

    def __init__(self, manager: SyncManager) -> None:
        self._manager = manager
        self._queue: Any = manager.Queue()

    def put(self, item: object) -> None:
        """Adds an object."""
        self._queue.put(bytes(ForkingPickler.dumps(item)))

    def get_nowait(self) -> Any:
        """Takes the oldest object.

        Raises:
            queue.Empty: there is none.
        """
        return ForkingPickler.loads(self._queue.get_nowait())

    def close(self) -> None:
        """Ends the manager's process."""
        self._manager.shutdown()

    def __getstate__(self) -> dict[str, Any]:
        # Only the process that started the manager can end it.
        return {"_manager": None, "_queue": self._queue}


def start_manager(context: SpawnContext) -> SyncManager:
    """Start a ``multiprocessing`` manager that does not outlive this process.

    The standard one waits for its parent's word to stop, which a killed parent never gives;
    it would stay, and hold the parent's output pipes open.
    """
    manager = SyncManager(ctx=context)
    manager.start(initializer=end_with_parent, initargs=(os.getpid(),))
    return manager


def end_with_parent(parent: int) -> None:
    """Watch, in a thread, for the end of process ``parent``, and end this process with it.

    Signals that ask the run to stop often go to all its processes (Slurm, Ctrl-C). The parent still
    has a checkpoint to save then, and needs its helper for that.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(0)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
