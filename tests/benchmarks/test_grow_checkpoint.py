"""The benchmark of growth on disk runs at a tiny size; nothing is said about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_folder_and_checkpoint_are_grown_and_the_last_line_is_the_result(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/grow_checkpoint.py", "--quick", "--data", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["ok"] is True
    for kind in ("folder", "checkpoint"):
        assert {f"{kind}/speed of cp", f"{kind}/synced of cp"} <= set(document["ratios"])
        assert document[kind]["output_bytes"] > document[kind]["input_bytes"] > 0
        assert document[kind]["median"]["tool"]["peak_mib"] > 0
    assert list(tmp_path.iterdir()) == []
