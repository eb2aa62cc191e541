"""How far a run is: one live line on a terminal, plain log lines anywhere else.

The time left is estimated from the FLOPs left, not from the steps left: the layers a run grows
make its later steps dearer, so a step count would promise an end that moves away at every growth.
The rate is that of the last minutes of wall time, evaluations, saves and growth included.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from megagrow.units import format_count, format_duration, format_flops

logger = logging.getLogger(__name__)

_CLEAR = "\r\x1b[2K"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands after an optimizer step."""

    step: int
    """Optimizer steps done."""

    total_steps: int
    """Optimizer steps of the whole run."""

    stage: str
    """Name of the current stage."""

    layers: int
    """Depth of the current model."""

    loss: float
    """Loss of this step, in nats per token."""

    flops: float
    """Training FLOPs done, every stage included."""

    total_flops: float
    """Training FLOPs of the whole run."""

    tokens_per_second: float
    """Throughput of the whole job."""

    tflops_per_device: float
    """Achieved TFLOP/s of one device."""

    mfu: float | None
    """Share of the device's peak, 0 to 1; None where no peak is known (CPU)."""


def format_progress(
    progress: Progress, *, seconds_left: float | None, width: int | None = None
) -> str:
    """One line about a run, at most `width` characters where a width is given.

    Where it does not fit, what matters least goes first: compute rate, tokens per second, layers,
    stage, time left.
    """
    if progress.mfu is None:
        compute = f"{format_flops(progress.tflops_per_device * 1e12)}/s per device"
    else:
        compute = f"MFU {progress.mfu:.1%}"
    parts = {
        "step": f"step {progress.step:,}/{progress.total_steps:,}",
        "stage": progress.stage,
        "layers": f"{progress.layers} layers",
        "loss": f"loss {progress.loss:.4f}",
        "tokens": f"{format_count(progress.tokens_per_second)} tokens/s",
        "compute": compute,
        "left": "" if seconds_left is None else f"{format_duration(seconds_left)} left",
    }
    shown = {name: part for name, part in parts.items() if part}
    for name in ("compute", "tokens", "layers", "stage", "left"):
        if width is None or len(" | ".join(shown.values())) <= width:
            break
        shown.pop(name, None)
    return " | ".join(shown.values())[:width]


class TimeLeft:
    """Estimates the time left from the FLOPs left and the recent rate of FLOPs."""

    def __init__(self, *, window: float = 120.0) -> None:
        """Take the rate from the last `window` seconds, and from 8 steps at least."""
        self._window = window
        self._seen: deque[tuple[float, float]] = deque()

    def update(self, now: float, flops: float) -> None:
        """Note that at time `now` (seconds, monotonic) the run had done `flops`."""
        self._seen.append((now, flops))
        while len(self._seen) > 8 and now - self._seen[1][0] >= self._window:
            self._seen.popleft()

    def seconds(self, total_flops: float) -> float | None:
        """Seconds until `total_flops`; None before two steps were seen."""
        if not self._seen:
            return None
        (first, flops_then), (last, flops_now) = self._seen[0], self._seen[-1]
        if last <= first or flops_now <= flops_then:
            return None
        return max(0.0, total_flops - flops_now) * (last - first) / (flops_now - flops_then)


class ProgressLine:
    """Shows `Progress` as it comes: a line that redraws itself, or log lines at an interval.

    Log lines go to this module's logger at INFO, so they land where the run's log goes.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        live: bool | None = None,
        interval: float = 10.0,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shown before the first step.

        Args:
            stream: where the live line goes; standard error where not given.
            live: redraw one line; where not given, whether `stream` is a terminal.
            interval: seconds between log lines when not live; the first and the last step of a
                run always get one.
            enabled: whether this process shows anything, normally `rank == 0`.
            clock: monotonic seconds.
        """
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() if live is None else live
        self._interval = 0.1 if self._live else interval
        self._enabled = enabled
        self._clock = clock
        self._left = TimeLeft()
        self._shown_at = -math.inf
        self._line = ""

    def update(self, progress: Progress) -> None:
        """Take in one step, and show it if the last one shown is old enough."""
        if not self._enabled:
            return
        now = self._clock()
        self._left.update(now, progress.flops)
        if now - self._shown_at < self._interval and progress.step < progress.total_steps:
            return
        self._shown_at = now
        left = self._left.seconds(progress.total_flops)
        if self._live:
            # One column stays free: a full line makes some terminals wrap.
            self._line = format_progress(progress, seconds_left=left, width=self._width() - 1)
            self._write(_CLEAR + self._line)
        else:
            logger.info("%s", format_progress(progress, seconds_left=left))

    def note(self, text: str) -> None:
        """Leave a lasting line, for example about a growth, above the live one."""
        if not self._enabled:
            return
        if self._live:
            self._write(f"{_CLEAR}{text}\n{self._line}")
        else:
            logger.info("%s", text)

    def close(self) -> None:
        """End the live line, keeping what it last said."""
        if self._line:
            self._write(f"{_CLEAR}{self._line}\n")
            self._line = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):  # not a real terminal
            return 80
