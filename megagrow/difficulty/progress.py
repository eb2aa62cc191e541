"""How far training is: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from megagrow.shards.live_line import LiveLine
from megagrow.units import format_duration

_LEAST_SHARE = 0.01  # before that, a guess at the time left is worth nothing


class Progress(LiveLine):
    """Says what is done, and how long the phase at hand will take."""

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """Gives a function that is told the share done, from 0 to 1, and some words on it."""
        start = time.monotonic()

        def show(share: float, words: str = "") -> None:
            def line() -> str:
                left = format_duration((time.monotonic() - start) * (1 - share) / share)
                return f"{name} {share:4.0%}, {left} left{words}"

            if share >= _LEAST_SHARE:
                self.show(line)

        self.begin()
        try:
            yield show
        finally:
            self.end()
