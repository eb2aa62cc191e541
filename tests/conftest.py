"""Fixtures for all rooms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.distributed import World

# Examples take as long as the machine is busy: no time limit on one.
settings.register_profile("megagrow", deadline=None)
settings.load_profile("megagrow")


def _world(size: int) -> Iterator[World]:
    world = World(size)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(scope="session")
def world1() -> Iterator[World]:
    """One process for the whole session, apart from the test's: what runs are compared with."""
    yield from _world(1)


@pytest.fixture(scope="session")
def world2() -> Iterator[World]:
    """Two gloo processes for the whole session; they start at the first ``run``."""
    yield from _world(2)


@pytest.fixture(scope="session")
def world4() -> Iterator[World]:
    """Four gloo processes for the whole session; they start at the first ``run``."""
    yield from _world(4)
