"""Work on many files in several processes that live as long as the job.

An engine is fast because it remembers words it has seen, so a worker keeps its own for all its
files. Workers are spawned: a fork would copy threads' locks. One worker is this very process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from typing import Any, Protocol, TypeVar

from megagrow.errors import DataError
from megagrow.runtime.orphans import end_with_parent
from megagrow.shards.shard import DamagedShardError

Task = TypeVar("Task")
Result = TypeVar("Result")
Opened = TypeVar("Opened", covariant=True)


@dataclass(frozen=True, slots=True)
class Advance:
    """Work done since the last report."""

    input_bytes: int
    """Bytes of the shard, as stored."""

    text_bytes: int = 0
    """UTF-8 bytes of text."""

    tokens: int = 0
    """Token ids."""

    documents: int = 0
    """Documents."""


Report = Callable[[Advance], None]

_POLL_S = 0.2
_COUNTERS = len(fields(Advance))


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
    """A task that cannot be done because its file is damaged, or is not there any more."""

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
            report to; raises DamagedShardError for a task whose file is at fault.
        tasks: begun in their order.
        shared: opened once by each worker.
        workers: processes to work in; 1 is this one.
        report: is given what the tasks report, in this process; added up where there are workers.

    Raises:
        DataError: a worker was killed, or what a task raised.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        opened = shared.open() if tasks else None
        for number, task in enumerate(tasks):
            yield number, _attempt(function, task, opened, report)
        return
    context = multiprocessing.get_context("spawn")
    # Plain shared memory: a worker that is killed while it reports can hold no lock.
    counters = context.RawArray("q", _COUNTERS * workers)
    with ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start,
        initargs=(os.getpid(), shared, counters),
    ) as executor:
        try:
            yield from _results(executor, function, tasks, counters, report)
        except BrokenProcessPool:
            raise DataError(
                "a worker was killed, most likely as memory ran out: run again with fewer "
                "--workers to go on; finished files are kept"
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():
                child.kill()  # nobody needs what it is doing; a file is done whole or not
            raise


def _results(
    executor: ProcessPoolExecutor,
    function: Callable[[Task, Any, Report], Result],
    tasks: Sequence[Task],
    counters: Any,
    report: Report,
) -> Iterator[tuple[int, Result | Damaged]]:
    with _uninterrupted():
        numbers: dict[Future[Any], int] = {
            executor.submit(_work, function, task): number for number, task in enumerate(tasks)
        }
    seen = [0] * _COUNTERS
    while numbers:
        # With a timeout, so that Ctrl-C is seen at once.
        done, _ = wait(numbers, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        now = [sum(counters[each::_COUNTERS]) for each in range(_COUNTERS)]
        if now != seen:
            report(Advance(*(new - old for new, old in zip(now, seen, strict=True))))
            seen = now
        for future in done:
            yield numbers.pop(future), future.result()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started inside the block never see Ctrl-C: this one, later, ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class _Worker:
    opened: Any
    report: Report


# What this process keeps from task to task; only ever set in a worker, once.
_worker: _Worker | None = None


def _start(parent: int, shared: Opens[Any], counters: Any) -> None:
    global _worker
    end_with_parent(parent)
    # Workers of a pool are numbered one after the other, so each has counters of its own.
    number = int(multiprocessing.current_process().name.rpartition("-")[2])
    first = number * _COUNTERS % len(counters)

    def report(work: Advance) -> None:
        for place, value in enumerate(astuple(work), first):
            counters[place] += int(value)

    _worker = _Worker(opened=shared.open(), report=report)


def _work(function: Callable[[Any, Any, Report], Any], task: Any) -> Any:
    if _worker is None:
        raise RuntimeError("called outside a worker")
    return _attempt(function, task, _worker.opened, _worker.report)


def _attempt(
    function: Callable[[Any, Any, Report], Any], task: Any, opened: Any, report: Report
) -> Any:
    try:
        return function(task, opened, report)
    except DamagedShardError as error:
        return Damaged(error=str(error))
