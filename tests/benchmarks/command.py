"""Running a benchmark as a user does, at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def result(script: str, *options: str, timeout: float = 280) -> dict[str, Any]:
    """What `benchmarks/SCRIPT --quick` says in its last line; it must have ended well."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", "--quick", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document
