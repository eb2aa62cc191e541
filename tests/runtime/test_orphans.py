"""Helper processes: what goes through a manager's queue, and how the manager ends."""

from __future__ import annotations

import multiprocessing
import os
import queue

import pytest

from megagrow.runtime.orphans import OpaqueQueue, start_manager


class WhoUnpickles:
    """Unpickled, it is the number of the process that does it."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return os.getpid, ()


def test_objects_pass_a_manager_without_being_looked_at() -> None:
    manager = start_manager(multiprocessing.get_context("spawn"))
    through = OpaqueQueue(manager)
    try:
        through.put(WhoUnpickles())
        through.put({"exception": ValueError("as it was")})
        assert through.get_nowait() == os.getpid()
        assert str(through.get_nowait()["exception"]) == "as it was"
        with pytest.raises(queue.Empty):
            through.get_nowait()
    finally:
        through.close()
    assert not manager._process.is_alive()


def test_another_process_can_put_and_cannot_close() -> None:
    manager = start_manager(multiprocessing.get_context("spawn"))
    through = OpaqueQueue(manager)
    try:
        other = multiprocessing.get_context("fork").Process(target=through.put, args=(7,))
        other.start()
        other.join()
        assert through.get_nowait() == 7
        assert through.__getstate__()["_manager"] is None
    finally:
        through.close()
