"""The benchmark runs every loop and layout kind at a tiny size; nothing is said about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_loop_trains_and_the_last_line_is_the_result() -> None:
    command = [sys.executable, "benchmarks/train_overhead.py", "--quick", "--rounds", "2"]
    done = subprocess.run(
        [*command, "--layouts", "one", "pp2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    document = json.loads(done.stdout.splitlines()[-1])
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
