"""Worlds of processes for tests: run a function on 2 or 4 gloo ranks and get the results.

``run_distributed`` starts fresh processes. A :class:`World` keeps them for many calls, which
saves the start (seconds each, on importing torch); the fixtures ``world2`` and ``world4`` share
one per session. Functions and arguments travel by pickle: functions live at module level.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from megagrow.runtime.orphans import end_with_parent

DEFAULT_TIMEOUT_S = 240.0
_START_TIMEOUT_S = 240.0
_GRACE_S = 10.0


class WorkerError(AssertionError):
    """A worker raised; the message holds its rank and traceback."""


class WorkerTimeoutError(AssertionError):
    """Workers did not answer in time; the message holds where each of them hung."""


class World:
    """``size`` long-lived processes that form one gloo process group.

    A failure or a timeout kills all of them, as ranks that wait for a failed one cannot go on;
    the next :meth:`run` starts a new set. Parallel groups are torn down after each call.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._store: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(
        self, fn: Callable[..., Any], *args: Any, timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[Any]:
        """Call ``fn(*args)`` on every rank; the results in rank order.

        Raises:
            WorkerError: ``fn`` raised, or a process died.
            WorkerTimeoutError: some rank had no result after ``timeout`` seconds.
        """
        if not self._processes:
            self._start()
        job = pickle.dumps((fn, args))
        for pipe in self._pipes:
            pipe.send_bytes(job)
        return self._collect(timeout)

    def close(self) -> None:
        """Let the processes end cleanly; kill those that do not."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send_bytes(b"")
        deadline = time.monotonic() + _GRACE_S
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self._kill()

    def _start(self) -> None:
        from torch.distributed import TCPStore

        # The store listens before a worker starts, on a port the system chose: no port can be
        # taken in between, as it could with "find a free port, then use it".
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._folder = tempfile.TemporaryDirectory(prefix="megagrow-world-")
        context = multiprocessing.get_context("spawn")
        for rank in range(self.size):
            mine, theirs = context.Pipe()
            environ = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self._store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "OMP_NUM_THREADS": "1",
            }
            # Not daemonic: saving a checkpoint starts processes of its own.
            process = context.Process(
                target=_work, args=(environ, theirs, self._stack_file(rank)), daemon=False
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(mine)
        self._collect(_START_TIMEOUT_S)

    def _stack_file(self, rank: int) -> str:
        assert self._folder is not None
        return str(Path(self._folder.name) / f"stack_{rank}.txt")

    def _collect(self, timeout: float) -> list[Any]:
        deadline = time.monotonic() + timeout
        results: dict[int, Any] = {}
        while len(results) < self.size:
            waiting = [rank for rank in range(self.size) if rank not in results]
            pipes: dict[Any, int] = {self._pipes[rank]: rank for rank in waiting}
            left = deadline - time.monotonic()
            ready = wait(list(pipes), left) if left > 0 else []
            if not ready:
                stacks = self._stacks(waiting)
                self._kill()
                raise WorkerTimeoutError(
                    f"ranks {waiting} gave no result in {timeout:g} s\n{stacks}"
                )
            for pipe in ready:
                rank = pipes[pipe]
                results[rank] = self._receive(rank, waiting)
        return [results[rank] for rank in range(self.size)]

    def _receive(self, rank: int, waiting: list[int]) -> Any:
        try:
            done, value = pickle.loads(self._pipes[rank].recv_bytes())
        except (EOFError, OSError):
            self._processes[rank].join(_GRACE_S)
            code = self._processes[rank].exitcode
            self._kill()
            raise WorkerError(f"rank {rank} died with exit code {code}") from None
        if done:
            return value
        # The first to fail is often only the one that noticed: give the others a moment.
        messages = [f"rank {rank}:\n{value}"]
        for other in waiting:
            if other != rank and self._pipes[other].poll(1.0):
                with contextlib.suppress(EOFError, OSError):
                    other_done, other_value = pickle.loads(self._pipes[other].recv_bytes())
                    if not other_done:
                        messages.append(f"rank {other}:\n{other_value}")
        self._kill()
        raise WorkerError("\n".join(messages))

    def _stacks(self, ranks: list[int]) -> str:
        for rank in ranks:
            pid = self._processes[rank].pid
            if pid is not None and self._processes[rank].is_alive():
                os.kill(pid, signal.SIGUSR2)
        time.sleep(0.5)
        texts = []
        for rank in ranks:
            path = Path(self._stack_file(rank))
            texts.append(f"rank {rank}:\n{path.read_text() if path.exists() else 'not started'}")
        return "\n".join(texts)

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes, self._store = [], [], None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def run_distributed(
    fn: Callable[..., Any], world_size: int, *args: Any, timeout: float = DEFAULT_TIMEOUT_S
) -> list[Any]:
    """Call ``fn(*args)`` on ``world_size`` fresh processes; see :meth:`World.run`."""
    world = World(world_size)
    try:
        return world.run(fn, *args, timeout=timeout)
    finally:
        world.close()


def _work(environ: dict[str, str], pipe: Connection, stack_file: str) -> None:
    os.environ.update(environ)
    end_with_parent(os.getppid())  # also when pytest is killed, or ends the session by a timeout
    with open(stack_file, "w") as stacks:
        faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)
        from megagrow.runtime import logging, megatron_core

        logging.configure("WARNING")
        megatron_core.load()
        from megagrow.runtime import groups, processes

        try:
            processes.start(timeout_s=_START_TIMEOUT_S)
            _send(pipe, True, None)
            while True:
                job = pipe.recv_bytes()
                if not job:
                    break
                fn, args = pickle.loads(job)
                result = fn(*args)
                _release_models()
                groups.tear_down()
                _send(pipe, True, result)
        except EOFError:
            pass  # the test process is gone
        except BaseException:
            with contextlib.suppress(OSError):
                _send(pipe, False, traceback.format_exc())
                pipe.recv_bytes()  # stay, so that the others see a traceback, not a lost peer
            os._exit(1)
        processes.stop()


def _release_models() -> None:
    """Frees what a test did not: models keep their groups, whose threads would stay and wake."""
    if "megatron.core.distributed" not in sys.modules:
        return
    from megatron.core.distributed import DistributedDataParallel

    from megagrow.runtime import compat

    for each in gc.get_objects():
        if type(each).__mro__.count(DistributedDataParallel) and hasattr(each, "grad_accs"):
            compat.release([each])


def _send(pipe: Connection, done: bool, value: Any) -> None:
    pipe.send_bytes(pickle.dumps((done, value)))
