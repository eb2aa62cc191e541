"""Environment variables that have to be there before CUDA starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megagrow.errors import ConfigError
from megagrow.runtime.environment import DETERMINISTIC, prepare
from tests.train import trial

_SCRIPT = """
import json, os, sys
import torch

names = ("CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG")
seen = []

def asked(ask):  # whoever asks torch about CUDA starts it
    seen.append({name: os.environ.get(name) for name in names})
    return ask()

for name in ("is_available", "device_count", "init"):
    ask = getattr(torch.cuda, name)
    setattr(torch.cuda, name, lambda ask=ask: asked(ask))
import pretrain_grow

code = pretrain_grow.main()
print(json.dumps([code, seen[0], torch.are_deterministic_algorithms_enabled()]))
"""


def _main(file: Path, *overrides: str) -> list[Any]:
    """Exit code, variables when CUDA was first asked for, and whether torch is deterministic."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, file, *overrides],
        env={**os.environ, "PYTHONPATH": str(trial.ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_one_connection_for_tensor_parallelism() -> None:
    environ: dict[str, str] = {}
    prepare(environ, tensor_parallel=False, deterministic=False)
    assert environ == {}
    prepare(environ, tensor_parallel=True, deterministic=False)
    assert environ == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}


def test_what_the_user_set_stays() -> None:
    environ = {"CUDA_DEVICE_MAX_CONNECTIONS": "8", "NCCL_ALGO": "Ring"}
    prepare(environ, tensor_parallel=True, deterministic=True)
    assert environ == {**DETERMINISTIC, "CUDA_DEVICE_MAX_CONNECTIONS": "8", "NCCL_ALGO": "Ring"}


def test_an_environment_that_forbids_determinism_is_refused() -> None:
    environ = {"NVTE_ALLOW_NONDETERMINISTIC_ALGO": "1"}
    prepare(environ, tensor_parallel=True, deterministic=False)
    with pytest.raises(ConfigError, match="NVTE_ALLOW_NONDETERMINISTIC_ALGO=1"):
        prepare(environ, tensor_parallel=True, deterministic=True)


def test_the_command_sets_them_before_cuda_starts(tmp_path: Path) -> None:
    # One process cannot be two: the command ends with that, after it has asked for the device.
    file = trial.configure(tmp_path, tmp_path, {"stages.1.parallel": {"tensor": 2}})
    code, first, deterministic = _main(file)
    assert code == 2
    assert first == {"CUDA_DEVICE_MAX_CONNECTIONS": "1", "CUBLAS_WORKSPACE_CONFIG": None}
    assert not deterministic


def test_a_deterministic_run_trains(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = trial.shared_data(tmp_path_factory)
    changes = {"deterministic": True, "parallel.pipeline": 1, "model.dropout": 0.0}
    file = trial.configure(tmp_path, data, changes)
    code, first, deterministic = _main(file)
    assert code == 0
    assert first == {"CUDA_DEVICE_MAX_CONNECTIONS": None, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert deterministic
    assert len(trial.losses(tmp_path / "run")) == trial.STEPS
