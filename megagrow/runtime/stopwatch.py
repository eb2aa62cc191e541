"""How long the parts of a piece of work take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds of named phases, the device's work included."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Seconds of each phase so far."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the block, and what it started on the device, to phase `name`."""
        begun = time.monotonic()
        yield
        torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun
