"""Who logs what, and which noise is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

_SCRIPT = """
import sys
from megagrow.runtime import logging as run_logging
run_logging.configure(sys.argv[1])
run_logging.configure(sys.argv[1])
import logging, warnings
log = logging.getLogger("megagrow.test")
log.debug("a detail")
log.info("a message")
log.warning("a warning")
logging.getLogger("megatron.core").info("every parameter")
logging.getLogger("megatron.core").warning("Apex is not installed, so")
logging.getLogger("megatron.core").error("a third party's error")
warnings.warn("Transformer Engine and Apex are not installed. Falling back.")
warnings.warn("a warning of ours")
warnings.warn("it is recommended to set CUDA_DEVICE_MAX_CONNECTIONS to 1")
"""


def _run(rank: int, level: str = "INFO", script: str = _SCRIPT) -> str:
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    command = [sys.executable, "-c", script, level]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stderr


def test_rank_0_tells_and_leaves_out_noise() -> None:
    text = _run(0)
    assert len(re.findall(r"^\d\d:\d\d:\d\d a message$", text, re.MULTILINE)) == 1
    assert "[rank 0] WARNING megagrow.test: a warning" in text
    assert "a third party's error" in text
    assert "a warning of ours" in text
    for left_out in ("a detail", "every parameter", "Apex"):
        assert left_out not in text
    assert ("CUDA_DEVICE_MAX_CONNECTIONS" in text) == torch.cuda.is_available()


def test_a_gpu_is_told_about_its_connections() -> None:
    gpu = "import torch\ntorch.cuda.is_available = lambda: True\n"
    assert "CUDA_DEVICE_MAX_CONNECTIONS" in _run(0, script=gpu + _SCRIPT)


def test_other_ranks_only_warn() -> None:
    text = _run(1)
    assert "a message" not in text
    assert "[rank 1] WARNING megagrow.test: a warning" in text


def test_debug_shows_third_parties_too() -> None:
    text = _run(0, "DEBUG")
    assert "a detail" in text
    assert "a message" in text
