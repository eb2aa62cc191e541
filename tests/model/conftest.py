"""A world of one for tests that need parallel groups in the test process itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from megagrow.runtime import groups, processes


@pytest.fixture
def alone() -> Iterator[None]:
    """This process as the only one; what the test sets up is torn down after it."""
    started = processes.start()
    yield
    groups.tear_down()
    if started:
        processes.stop()
