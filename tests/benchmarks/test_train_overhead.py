"""The benchmark runs every loop and layout kind at a tiny size; nothing is said about speed."""

from __future__ import annotations

import pytest

from tests.benchmarks.command import result


@pytest.mark.slow
def test_every_loop_trains_and_the_last_line_is_the_result() -> None:
    document = result("train_overhead.py", "--rounds", "2", "--layouts", "one", "pp2")
    assert document["ok"] is True
    assert {name: set(each) for name, each in document["measured"].items()} == {
        "one": {"ours", "bare", "stock", "plain"},
        "pp2": {"ours", "bare"},
    }
    for contenders in document["measured"].values():
        for figures in contenders.values():
            assert figures["tokens_per_second"] > 0
            assert min(figures["peak_mib"]) > 50
    assert len(document["measured"]["pp2"]["ours"]["peak_mib"]) == 2
    assert document["ratios"]["one/plain/speed"] > 0
