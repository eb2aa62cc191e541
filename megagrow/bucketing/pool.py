"""Work on many files in several processes that live as long as the job.

An engine is fast because it remembers words it has seen, so a worker keeps its own for all its
files. Workers are spawned: a fork would copy threads' locks. One worker is this very process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from megagrow.errors import DataError
from megagrow.runtime.orphans import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")
Shared = TypeVar("Shared")
Opened = TypeVar("Opened", covariant=True)
Report = Callable[[Any], None]

_POLL_S = 0.2


class Opens(Protocol[Opened]):
    """What every worker opens once, and is sent as a few names and numbers."""

    def open(self) -> Opened:
        """Loads it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """For tasks that need nothing opened."""

    def open(self) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """What is open already in this process; for one worker, as it cannot be sent."""

    opened: Any
    """What the tasks need."""

    def open(self) -> Any:
        """Just that."""
        return self.opened


@dataclass(frozen=True, kw_only=True, slots=True)
class Damaged:
    """A task that cannot be done because of what its file holds."""

    error: str
    """What, where, how to mend."""


def run(
    function: Callable[[Task, Any, Report], Result],
    tasks: Sequence[Task],
    shared: Opens[Any],
    *,
    workers: int,
    report: Report,
) -> Iterator[tuple[int, Result | Damaged]]:
    """Does every task, in any order; yields (number of the task, result) as each is done.

    Args:
        function: a module's own function, called with a task, what `shared` opened, and where to
            report to; raises DataError for a task whose file is at fault.
        tasks: begun in their order.
        shared: opened once by each worker.
        workers: processes to work in; 1 is this one.
        report: is given what the tasks report, in this process.

    Raises:
        DataError: a worker was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        opened = shared.open() if tasks else None
        for number, task in enumerate(tasks):
            yield number, _attempt(function, task, opened, report)
        return
    context = multiprocessing.get_context("spawn")
    reports: SimpleQueue[Any] = context.SimpleQueue()
    with (
        _forwarded(reports, report),
        ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start,
            initargs=(os.getpid(), shared, reports),
        ) as executor,
    ):
        try:
            yield from _results(executor, function, tasks)
        except BrokenProcessPool:
            raise DataError(
                "a worker was killed, most likely as memory ran out: run again with fewer "
                "--workers to go on; finished files are kept"
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()  # nobody needs what it is doing; a file is done whole or not
            raise


def _results(
    executor: ProcessPoolExecutor,
    function: Callable[[Task, Any, Report], Result],
    tasks: Sequence[Task],
) -> Iterator[tuple[int, Result | Damaged]]:
    numbers: dict[Future[Any], int] = {
        executor.submit(_work, function, task): number for number, task in enumerate(tasks)
    }
    while numbers:
        # With a timeout, so that Ctrl-C is seen at once.
        done, _ = wait(numbers, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            yield numbers.pop(future), future.result()


@dataclass(slots=True)
class _Worker(Generic[Shared]):
    opened: Shared
    report: Report


# What this process keeps from task to task; only ever set in a worker, once.
_worker: _Worker[Any] | None = None


def _start(parent: int, shared: Opens[Any], reports: SimpleQueue[Any]) -> None:
    global _worker
    end_with_parent(parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _worker = _Worker(opened=shared.open(), report=reports.put)


def _work(function: Callable[[Any, Any, Report], Any], task: Any) -> Any:
    if _worker is None:
        raise RuntimeError("called outside a worker")
    return _attempt(function, task, _worker.opened, _worker.report)


def _attempt(
    function: Callable[[Any, Any, Report], Any], task: Any, opened: Any, report: Report
) -> Any:
    try:
        return function(task, opened, report)
    except DataError as error:
        return Damaged(error=str(error))


@contextmanager
def _forwarded(reports: SimpleQueue[Any], report: Report) -> Iterator[None]:
    """Hands what the workers report to `report`, from a thread, inside the block."""

    def forward() -> None:
        while (found := reports.get()) is not _END:
            report(found)

    thread = threading.Thread(target=forward, name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        reports.put(_END)
        thread.join()


_END = None
