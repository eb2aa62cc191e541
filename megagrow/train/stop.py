"""Why a run should stop before its end: a signal, or the wall-clock budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, Literal

StopReason = Literal["preempted", "wall_time"]

EXIT_REQUEUE = 75
"""Exit code of a run that saved and can be started again (sysexits.h EX_TEMPFAIL)."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def ignore_signals() -> None:
    """Once all is saved: a signal that comes twice must not spoil the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopWatch:
    """Collects requests to stop; use as a context manager around training.

    SIGTERM (Slurm, torchrun), SIGUSR1 (Slurm's `--signal`) and the first SIGINT ask for a save at
    the next step boundary; a second SIGINT interrupts at once.
    """

    def __init__(self, wall_time: float | None) -> None:
        self._deadline = None if wall_time is None else time.monotonic() + wall_time
        self._signalled = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopWatch:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signalled:
            raise KeyboardInterrupt
        self._signalled = True

    def votes(self) -> tuple[bool, bool]:
        """What this rank has to say: a signal came, the time is up."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return self._signalled, late

    def reason(self, votes: Sequence[int]) -> StopReason | None:
        """Whether to stop now, and why, by the `votes` of all ranks added up."""
        signalled, late = votes
        return "preempted" if signalled else "wall_time" if late else None
