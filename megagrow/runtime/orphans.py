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

_POLL_S = 0.5


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
