"""Environment variables that CUDA and its libraries read once, as they start. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from megagrow.errors import ConfigError

TENSOR_PARALLEL = {
    # One queue to the device: a collective that is called before a matrix product starts before it
    # and overlaps with it (`linear_with_grad_accumulation_and_async_allreduce`). Speed, no result.
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
}
"""What megatron-core asks for where layers are split over ranks."""

DETERMINISTIC = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # torch refuses cuBLAS without it
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",  # megatron-core refuses TE's attention without it
    "NCCL_ALGO": "^NVLS",  # sums inside the switch come in any order
}
"""What has to be set for sums to be made in one order."""


def prepare(
    environ: MutableMapping[str, str], *, tensor_parallel: bool, deterministic: bool
) -> None:
    """Completes the environment; call before anything asks torch about CUDA.

    What is set already stays: Blackwell and later need no CUDA_DEVICE_MAX_CONNECTIONS, and which
    chip it is cannot be asked without starting CUDA.

    Args:
        environ: `os.environ`, which is changed.
        tensor_parallel: whether any stage has a tensor-parallel size above 1.
        deterministic: whether the run asks for deterministic kernels.

    Raises:
        ConfigError: the run is to be deterministic, and the environment forbids it.
    """
    wanted = {
        **(TENSOR_PARALLEL if tensor_parallel else {}),
        **(DETERMINISTIC if deterministic else {}),
    }
    for name, value in wanted.items():
        environ.setdefault(name, value)
    name = "NVTE_ALLOW_NONDETERMINISTIC_ALGO"
    if deterministic and environ[name] != "0":
        raise ConfigError(
            f"deterministic: the environment sets {name}={environ[name]}, which allows Transformer "
            "Engine what the run forbids; unset it, or set deterministic to false"
        )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
