"""Contenders that take turns: each a set of processes that train when asked and sleep otherwise."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any

WARM_UP = 3
"""Steps before the first turn: optimizer state, allocator, data files."""

_TIMEOUT_S = 400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one process did in its turn."""

    seconds: list[float]
    """Wall-clock time of each step."""

    cpu_seconds: float
    """Processor time of the whole turn, all threads."""

    peak_bytes: int
    """The highest memory use of the process so far."""


class Finished(Exception):  # noqa: N818
    """Unwinds a contender that has no more turns."""


class Pace:
    """Called after every step of a contender; returns when the next one may begin."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._left = WARM_UP
        self._begin()

    def __call__(self) -> None:
        """Note a step; at the end of a turn, report it and wait for the next.

        Raises:
            Finished: there is none.
        """
        self._left -= 1
        if self._left == 0:
            self._report()
            order = self._pipe.recv()
            if order is None:
                raise Finished
            self._left = int(order)
            self._begin()
        else:
            self._marks.append(time.perf_counter())

    def _begin(self) -> None:
        self._cpu = time.process_time()
        self._marks = [time.perf_counter()]

    def _report(self) -> None:
        import torch

        from megagrow.runtime import device

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._marks.append(time.perf_counter())
        self._pipe.send(
            Turn(
                seconds=[
                    after - before
                    for before, after in zip(self._marks[:-1], self._marks[1:], strict=True)
                ],
                cpu_seconds=time.process_time() - self._cpu,
                peak_bytes=device.memory_peak_bytes(),
            )
        )


class Team:
    """The processes of one contender. They start at once; `wait_ready` waits for the warm-up."""

    def __init__(
        self,
        module: str,
        function: str,
        argument: Any,
        *,
        size: int,
        threads: int,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start `size` processes that call `function(argument, pace)` of `module`.

        Args:
            module: where the contender is; imported in the processes only.
            function: its name.
            argument: what it is given; pickled.
            size: ranks.
            threads: of each process.
            environ: more environment variables of theirs.
        """
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        # It listens before a process starts, on a port the system chose.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for rank in range(size):
            mine, theirs = context.Pipe()
            place = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self._store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "OMP_NUM_THREADS": str(threads),
                "CUDA_DEVICE_MAX_CONNECTIONS": "1",
                "PYTHONWARNINGS": "ignore::UserWarning,ignore::FutureWarning",
            }
            process = context.Process(
                target=_work, args=(theirs, module, function, argument), daemon=False
            )
            with _environment({**place, **environ}):
                process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def wait_ready(self) -> list[Turn]:
        """Wait until every process has warmed up."""
        return self._collect()

    def turn(self, steps: int) -> list[Turn]:
        """Let all processes train for some steps; what each did, by rank."""
        for pipe in self._pipes:
            pipe.send(steps)
        return self._collect()

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            try:
                pipe.send(None)
            except OSError:
                continue
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.kill()
                process.join()

    def _collect(self) -> list[Turn]:
        turns = []
        deadline = time.monotonic() + _TIMEOUT_S
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise RuntimeError(f"rank {rank} did not answer within {_TIMEOUT_S:g} s")
            try:
                answer = pipe.recv()
            except EOFError:
                raise RuntimeError(f"rank {rank} died") from None
            if isinstance(answer, str):
                raise RuntimeError(f"rank {rank} failed:\n{answer}")
            turns.append(answer)
        return turns


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """For processes that start inside: some variables are read before Python runs."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _work(pipe: Connection, module: str, function: str, argument: Any) -> None:
    contender: Callable[[Any, Pace], None] = getattr(import_module(module), function)
    try:
        contender(argument, Pace(pipe))
    except (Finished, EOFError):
        return
    except BaseException:
        pipe.send(traceback.format_exc())
        raise


@contextmanager
def teams(starts: Mapping[str, Callable[[], Team]]) -> Iterator[dict[str, Team]]:
    """Starts teams, which are ready together, and ends them, by name."""
    begun: dict[str, Team] = {}
    try:
        for name, start in starts.items():
            begun[name] = start()
        for team in begun.values():
            team.wait_ready()
        yield begun
    finally:
        for team in begun.values():
            team.close()
