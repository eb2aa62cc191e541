"""The benchmark of growing runs at a tiny size; nothing is said about speed."""

from __future__ import annotations

import pytest

from tests.benchmarks.command import result


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernel_and_pause_are_measured_and_the_last_line_is_the_result() -> None:
    document = result("growth.py", timeout=800)
    assert document["ok"] is True
    growths = document["pause"]["dp2-to-pp2"]
    assert {"plan", "build", "move", "unpack", "gather"} <= set(growths["memory"]["phases"])
    assert set(growths["checkpoint"]["phases"]) == {"write", "read"}
    assert set(growths["by hand"]["phases"]) == {"save", "remap", "load"}
    assert min(growths["memory"]["seconds"]) > 0
    for ratio in ("by_hand", "through_checkpoint", "in_steps", "memory"):
        assert f"pause/dp2-to-pp2/{ratio}" in document["ratios"]
    assert document["kernel"]["gb_per_second"]
