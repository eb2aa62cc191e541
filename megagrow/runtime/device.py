"""The device of this process, its memory high-water mark and its peak speed."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_PROC_STATUS = Path("/proc/self/status")
_PROC_CLEAR_REFS = Path("/proc/self/clear_refs")

#: Dense bf16 tensor-core peaks in TFLOP/s, from NVIDIA's data sheets ("without sparsity"; where
#: a sheet lists the sparse number, half of it). The first entry counts whose words are all in
#: the product name.
_DENSE_BF16_TFLOPS: tuple[tuple[str, float], ...] = (
    ("GB300", 2500.0),
    ("GB200", 2500.0),
    ("B300", 2250.0),
    ("B200", 2250.0),
    ("GH200", 989.4),
    ("H200 NVL", 835.5),
    ("H200", 989.4),
    ("H800 PCIe", 756.0),
    ("H800", 989.4),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.0),
    ("H100", 989.4),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
)

#: Words of names that mean another chip, or a slice of one.
_OTHER_PRODUCTS = frozenset({"TI", "SUPER", "LAPTOP", "D", "MIG"})


def is_cuda() -> bool:
    """Whether this process computes on a CUDA GPU."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """The device this process computes on: its own GPU, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if is_cuda() else torch.device("cpu")


def backend() -> str:
    """The torch.distributed backend for :func:`device`: ``nccl`` or ``gloo``."""
    return "nccl" if is_cuda() else "gloo"


def name() -> str:
    """The GPU's product name, or ``CPU``."""
    return torch.cuda.get_device_name() if is_cuda() else "CPU"


def make_deterministic() -> None:
    """Choose deterministic kernels in this process, or fail where an operation has none.

    Models built afterwards are told too (``TransformerConfig.deterministic_mode``). Needs
    :data:`megagrow.runtime.environment.DETERMINISTIC` in the environment.
    """
    torch.use_deterministic_algorithms(True)


def is_deterministic() -> bool:
    """Whether :func:`make_deterministic` was called."""
    return torch.are_deterministic_algorithms_enabled()


def memory_peak_bytes() -> int:
    """Highest memory use since the last :func:`reset_memory_peak`, in bytes.

    On CUDA: bytes in tensors, by torch's allocator. On CPU: resident memory of the process.
    """
    if is_cuda():
        return int(torch.cuda.max_memory_allocated())
    high_water = _status_bytes("VmHWM")
    if high_water is not None:
        return high_water
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_bytes() -> int:
    """Memory in use now, as :func:`memory_peak_bytes` counts it; where it cannot say, that."""
    if is_cuda():
        return int(torch.cuda.memory_allocated())
    resident = _status_bytes("VmRSS")
    return memory_peak_bytes() if resident is None else resident


def _status_bytes(key: str) -> int | None:
    if not _PROC_STATUS.exists():
        return None
    for line in _PROC_STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def reset_memory_peak() -> None:
    """Start a new high-water mark; a no-op on a CPU system that cannot (no ``/proc``)."""
    if is_cuda():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        _PROC_CLEAR_REFS.write_text("5")  # proc(5): "5" resets the peak resident set size
    except OSError:
        return


def peak_tflops(precision: str, device_name: str | None = None) -> tuple[float | None, str]:
    """Peak dense matrix speed of a device in TFLOP/s, and where the number is from.

    Args:
        precision: ``bf16``, ``fp16`` or ``fp32``; fp32 has no entry (its matrix products run in
            TF32 or plain fp32 by a torch setting, so no one number fits).
        device_name: Product name as torch reports it; default: this process's device.

    Returns:
        ``(None, reason)`` on a CPU, an unknown GPU or an unlisted precision: MFU is then null.
    """
    known = name() if device_name is None else device_name
    if known == "CPU":
        return None, "no peak is defined for a CPU"
    if precision not in ("bf16", "fp16"):
        return None, f"{precision} has no single peak (plain or TF32, by a torch setting)"
    words = set(known.upper().replace("-", " ").split())
    if not words & _OTHER_PRODUCTS:
        for part, tflops in _DENSE_BF16_TFLOPS:
            if words.issuperset(part.upper().split()):
                return tflops, f"{part} data sheet, dense {precision}"
    listed = ", ".join(part for part, _ in _DENSE_BF16_TFLOPS)
    return None, f"no peak is listed for {known} (only for {listed})"
