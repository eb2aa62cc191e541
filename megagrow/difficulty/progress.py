"""How far training is: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from megagrow.units import format_duration

_CLEAR = "\r\x1b[2K"


class Progress:
    """Says what is done, and how long the phase at hand will take.

    Args:
        stream: where to; standard error where not given.
        quiet: say nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = self._stream.isatty()
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """A lasting line."""
        if not self._quiet:
            clear = _CLEAR if self._live else ""
            elapsed = time.monotonic() - self._start
            print(f"{clear}[{elapsed:7.1f} s] {text}", file=self._stream, flush=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """Gives a function that is told the share done, from 0 to 1, and some words on it."""
        start = time.monotonic()
        shown = start
        wait = 0.2 if self._live else 10.0

        def show(share: float, words: str = "") -> None:
            nonlocal shown
            now = time.monotonic()
            if self._quiet or now - shown < wait or share < 0.01:
                return
            shown = now
            left = format_duration((now - start) * (1 - share) / share)
            begin, end = (_CLEAR, "") if self._live else ("  ", "\n")
            self._stream.write(f"{begin}{name} {share:4.0%}, {left} left{words}{end}")
            self._stream.flush()

        try:
            yield show
        finally:
            if self._live and not self._quiet:
                self._stream.write(_CLEAR)
                self._stream.flush()
