"""How far a job is: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from megagrow.bucketing.pool import Advance
from megagrow.units import format_bytes, format_count, format_duration

_WINDOW_S = 60.0
_LINE_INTERVAL_S = 10.0
_LIVE_INTERVAL_S = 0.2
_CLEAR = "\r\x1b[2K"


class Progress:
    """Shows phases of work that is measured in input bytes."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        """Shows on `stream`, standard error where not given; nothing if `quiet`."""
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._start = time.monotonic()
        # Reports come from a thread of their own while the job says something itself.
        self._lock = threading.Lock()
        self._phase: _Phase | None = None

    def say(self, text: str) -> None:
        """A lasting line."""
        if self._quiet:
            return
        with self._lock:
            clear = _CLEAR if self._live else ""
            print(
                f"{clear}[{time.monotonic() - self._start:7.1f} s] {text}",
                file=self._stream,
                flush=True,
            )

    @contextmanager
    def phase(self, name: str, total_bytes: int, done_bytes: int = 0) -> Iterator[None]:
        """Inside the block, `advance` counts up to `total_bytes`."""
        self._phase = _Phase(name, total_bytes, done_bytes)
        try:
            yield
        finally:
            if self._live and not self._quiet:
                self._stream.write(_CLEAR)
            self._phase = None

    def advance(self, work: Advance) -> None:
        """Counts work done."""
        phase = self._phase
        if phase is None:
            return
        with self._lock:
            phase.add(work)
            now = time.monotonic()
            wait = _LIVE_INTERVAL_S if self._live else _LINE_INTERVAL_S
            if self._quiet or now - phase.shown_at < wait:
                return
            phase.shown_at = now
            start, end = (_CLEAR, "") if self._live else ("", "\n")
            self._stream.write(f"{start}{phase.line(now)}{end}")
            self._stream.flush()


class _Phase:
    def __init__(self, name: str, total_bytes: int, done_bytes: int) -> None:
        self._name = name
        self._total = total_bytes
        self._input = done_bytes
        self._text = self._tokens = 0
        self.shown_at = time.monotonic()
        self._seen: deque[tuple[float, int, int, int]] = deque([(self.shown_at, done_bytes, 0, 0)])

    def add(self, work: Advance) -> None:
        self._input += work.input_bytes
        self._text += work.text_bytes
        self._tokens += work.tokens
        now = time.monotonic()
        self._seen.append((now, self._input, self._text, self._tokens))
        while now - self._seen[1][0] > _WINDOW_S:
            self._seen.popleft()

    def line(self, now: float) -> str:
        """What is done, how fast, and how long it will take."""
        then, read, text, tokens = self._seen[0]
        seconds = max(now - then, 1e-9)
        rate = (self._input - read) / seconds
        parts = [
            f"{self._name} {self._input / max(self._total, 1):6.1%}",
            f"{format_bytes(self._input)} of {format_bytes(self._total)}",
        ]
        if self._text:
            parts += [
                f"{(self._text - text) / seconds / 1e6:.0f} MB/s of text",
                f"{format_count((self._tokens - tokens) / seconds)} tokens/s",
            ]
        if rate > 0:
            parts.append(f"{format_duration(max(self._total - self._input, 0) / rate)} left")
        return " | ".join(parts)
