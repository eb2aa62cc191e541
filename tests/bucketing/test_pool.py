from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from megagrow.bucketing.pool import Advance, Damaged, Report, run
from megagrow.errors import DataError
from megagrow.shards.shard import DamagedShardError


@dataclass(frozen=True)
class Opens:
    """Marks each opening with a file, so that they can be counted."""

    folder: str = ""

    def open(self) -> int:
        if self.folder:
            Path(self.folder, str(os.getpid())).touch()
        return 100


def add(task: int, opened: int, report: Report) -> int:
    report(Advance(task))
    if task == 3:
        raise DamagedShardError("three is damaged")
    return task + opened


def die(task: int, opened: int, report: Report) -> int:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def fail(task: int, opened: int, report: Report) -> int:
    if task == 0:
        raise OSError(28, "No space left on device")
    time.sleep(60)
    return task


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(tmp_path: Path, workers: int) -> None:
    reports: list[Advance] = []
    found = dict(
        run(add, list(range(6)), Opens(str(tmp_path)), workers=workers, report=reports.append)
    )
    assert found.pop(3) == Damaged(error="three is damaged")
    assert found == {number: number + 100 for number in (0, 1, 2, 4, 5)}
    assert sum(each.input_bytes for each in reports) == sum(range(6))
    openings = {int(each.name) for each in tmp_path.iterdir()}
    assert len(openings) <= workers
    assert (os.getpid() in openings) == (workers == 1)


def refuse(task: int, opened: int, report: Report) -> int:
    raise DataError("no such column")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_damage_stops_the_job(workers: int) -> None:
    with pytest.raises(DataError, match="no such column"):
        list(run(refuse, [1, 2, 3], Opens(), workers=workers, report=print))


def test_no_task_opens_nothing(tmp_path: Path) -> None:
    assert list(run(add, [], Opens(str(tmp_path)), workers=4, report=print)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="a worker was killed, most likely as memory ran out"):
        list(run(die, list(range(4)), Opens(), workers=2, report=print))


def test_a_failure_ends_the_other_workers_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        list(run(fail, list(range(4)), Opens(), workers=2, report=print))
    assert time.monotonic() - start < 30
    assert not [
        child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
    ]
