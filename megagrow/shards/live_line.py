"""What a long job tells people: lasting lines, and one that is replaced as the work goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_CLEAR = "\r\x1b[2K"
_LIVE_INTERVAL_S = 0.2
_LINE_INTERVAL_S = 10.0


class LiveLine:
    """Plain lines, and a live one on a terminal, which anywhere else is a line now and then.

    Args:
        stream: where to; standard error where not given.
        quiet: show nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._start = self._shown_at = time.monotonic()
        # Reports come from a thread of their own while the job says something itself.
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """A lasting line, after the seconds since the start."""
        if self._quiet:
            return
        with self._lock:
            clear = _CLEAR if self._live else ""
            elapsed = time.monotonic() - self._start
            print(f"{clear}[{elapsed:7.1f} s] {text}", file=self._stream, flush=True)

    def begin(self) -> None:
        """Work begins that `show` will tell of."""
        self._shown_at = time.monotonic()

    def show(self, line: Callable[[], str]) -> None:
        """Shows how far the work is; `line` is called only where it is time to show it."""
        if self._quiet:
            return
        with self._lock:
            now = time.monotonic()
            if now - self._shown_at < (_LIVE_INTERVAL_S if self._live else _LINE_INTERVAL_S):
                return
            self._shown_at = now
            start, end = (_CLEAR, "") if self._live else ("", "\n")
            self._stream.write(f"{start}{line()}{end}")
            self._stream.flush()

    def end(self) -> None:
        """That work has ended: the live line goes away."""
        if self._live and not self._quiet:
            self._stream.write(_CLEAR)
            self._stream.flush()
