"""The benchmark of growth on disk runs at a tiny size; nothing is said about speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.command import result


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_folder_and_checkpoint_are_grown_and_the_last_line_is_the_result(tmp_path: Path) -> None:
    document = result("grow_checkpoint.py", "--data", str(tmp_path))
    assert document["ok"] is True
    for kind in ("folder", "checkpoint"):
        assert {f"{kind}/speed of cp", f"{kind}/synced of cp"} <= set(document["ratios"])
        assert document[kind]["output_bytes"] > document[kind]["input_bytes"] > 0
        assert document[kind]["median"]["tool"]["peak_mib"] > 0
    assert list(tmp_path.iterdir()) == []
