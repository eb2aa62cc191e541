"""How csrc is built and loaded, on machines that lack what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megagrow.kernels import native

ROOT = Path(__file__).resolve().parents[2]


def setup(**environment: str) -> subprocess.CompletedProcess[str]:
    """setup.py, with `environment` added to ours; nothing is built."""
    return subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_compiler_the_installation_goes_on() -> None:
    result = setup(CXX="/there/is/no/compiler", MEGAGROW_CUDA="0")
    assert result.returncode == 0
    assert "csrc is not built" in result.stderr
    assert "/there/is/no/compiler: No such file" in result.stderr


def test_cuda_that_was_asked_for_must_be_built(tmp_path: Path) -> None:
    result = setup(PATH=str(tmp_path), MEGAGROW_CUDA="1")
    assert result.returncode == 1
    assert "no nvcc on the path" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_odd_choice_is_refused() -> None:
    result = setup(MEGAGROW_CUDA="yes")
    assert result.returncode == 1
    assert "MEGAGROW_CUDA is 'yes': it must be 0, 1 or unset" in result.stderr


@pytest.mark.parametrize("changed", ["csrc/cpu/copy.cpp", "csrc/cuda/device.cuh"])
def test_a_change_of_csrc_is_built_by_make(changed: str, tmp_path: Path) -> None:
    (tmp_path / ".setup-dev").touch()
    make = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "GNUMAKEFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in make}
    command = ["make", "-n", "setup", f"VENV={tmp_path}", "EXTRAS=dev"]
    printed = [
        subprocess.run(each, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        for each in (command, [*command, "-W", changed])
    ]
    assert ["setup_environment.py" in each.stdout for each in printed] == [False, True]


@pytest.mark.skipif(native.load("cpu") is None, reason="csrc is not built")
def test_an_unknown_instruction_set_is_refused() -> None:
    module = native.load("cpu")
    assert module is not None
    assert module.instruction_sets()[-1] == "portable"
    from tests.kernels.test_segments import copy_with, simple

    with pytest.raises(ValueError, match="no instruction set sse9"):
        copy_with(simple(1), [torch.zeros(1)], [torch.zeros(1)], instructions="sse9")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_cuda_module_loads_without_a_gpu_and_reports_cudas_error() -> None:
    module = pytest.importorskip("megagrow.kernels._cuda", reason="csrc was built without CUDA")
    assert native.load("cuda") is None  # torch copies are used, a line in the log says so
    with pytest.raises(RuntimeError, match=r"copy_segments: .*(CUDA|device)"):
        module.copy(0, 1, 1, False, 1, 0, 0, 0, 0)


def test_the_gpu_benchmark_says_that_there_is_no_gpu() -> None:
    result = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 77
    assert result.stderr.startswith("gpu: no CUDA device")
    assert "Traceback" not in result.stderr
