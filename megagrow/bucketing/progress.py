"""How far a job is: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from megagrow.bucketing.pool import Advance
from megagrow.shards.live_line import LiveLine
from megagrow.units import format_bytes, format_count, format_duration

_WINDOW_S = 60.0


class Progress(LiveLine):
    """Shows phases of work that is measured in input bytes."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        """Shows on `stream`, standard error where not given; nothing if `quiet`."""
        super().__init__(stream, quiet=quiet)
        self._phase: _Phase | None = None

    @contextmanager
    def phase(self, name: str, total_bytes: int, done_bytes: int = 0) -> Iterator[None]:
        """Inside the block, `advance` counts up to `total_bytes`."""
        self._phase = _Phase(name, total_bytes, done_bytes)
        self.begin()
        try:
            yield
        finally:
            self.end()
            self._phase = None

    def advance(self, work: Advance) -> None:
        """Counts work done."""
        phase = self._phase
        if phase is None:
            return
        phase.add(work)
        self.show(phase.line)


class _Phase:
    def __init__(self, name: str, total_bytes: int, done_bytes: int) -> None:
        self._name = name
        self._total = total_bytes
        self._input = done_bytes
        self._text = self._tokens = 0
        # Several threads merge, and each reports.
        self._lock = threading.Lock()
        self._seen = deque([(time.monotonic(), done_bytes, 0, 0)])

    def add(self, work: Advance) -> None:
        with self._lock:
            self._input += work.input_bytes
            self._text += work.text_bytes
            self._tokens += work.tokens
            now = time.monotonic()
            self._seen.append((now, self._input, self._text, self._tokens))
            while now - self._seen[1][0] > _WINDOW_S:
                self._seen.popleft()

    def line(self) -> str:
        """What is done, how fast, and how long it will take."""
        then, read, text, tokens = self._seen[0]
        seconds = max(time.monotonic() - then, 1e-9)
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
