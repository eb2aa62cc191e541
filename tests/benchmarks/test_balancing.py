"""The benchmark of balancing runs at a small size; nothing is said about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_splits_are_the_best_and_the_last_line_is_the_result() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/balancing.py", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["not_the_best"] == []
    assert len(document["ratios"]) == 15
    assert "lognormal, limit, unequal/of 50 ms" in document["ratios"]
