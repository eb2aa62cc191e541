"""The benchmark of balancing runs at a small size; nothing is said about speed."""

from __future__ import annotations

from tests.benchmarks.command import result


def test_splits_are_the_best_and_the_last_line_is_the_result() -> None:
    document = result("balancing.py", timeout=120)
    assert document["not_the_best"] == []
    assert len(document["ratios"]) == 15
    assert "lognormal, limit, unequal/of 50 ms" in document["ratios"]
