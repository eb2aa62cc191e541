"""The compiled modules of csrc, loaded when first needed, and how they are called.

They take addresses, lengths and dtypes, and know nothing of torch: one build works with any.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megagrow.kernels.tables import DTYPES, addresses

if TYPE_CHECKING:
    from megagrow.kernels.combination import Combination, Noise
    from megagrow.kernels.segments import Segments

_MODULES = {"cpu": "megagrow.kernels._cpu", "cuda": "megagrow.kernels._cuda"}
_CUDA_NEEDS = (
    " with nvcc on the path, for GPUs of compute capability 9.0 or newer and a driver that "
    "supports nvcc's release"
)
_log = logging.getLogger(__name__)


def module_for(device: torch.device) -> ModuleType | None:
    """The compiled module for tensors on `device`; None where there is none, which is logged once.

    The CUDA module is not touched before the first CUDA tensor comes.
    """
    return load(device.type)


@cache
def load(kind: str) -> ModuleType | None:
    """The compiled module for `cpu` or `cuda`; None, with one line in the log, where it is not."""
    if kind not in _MODULES:
        _log.warning("no compiled kernels for %s tensors: plain torch copies are used", kind)
        return None
    try:
        module = importlib.import_module(_MODULES[kind])
        if kind == "cuda":
            _try_cuda(module)
        return module
    except (ImportError, RuntimeError) as error:
        hint = "make setup builds them" + (_CUDA_NEEDS if kind == "cuda" else "")
        _log.warning(
            "kernels for %s tensors cannot be used (%s): plain torch copies are used; %s",
            kind,
            error,
            hint,
        )
        return None


def _try_cuda(module: ModuleType) -> None:
    """Copies one element.

    Raises:
        RuntimeError: the GPU is too old for what was compiled, or the driver for the `nvcc`.
    """
    from megagrow.kernels.segments import Segments

    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU")
    zero, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    segments = Segments(
        source=zero,
        source_start=zero,
        length=one,
        first=np.array([0, 1]),
        destination=zero,
        destination_start=zero,
    )
    source = torch.ones(1, device="cuda")
    copied = torch.zeros_like(source)
    copy_segments(module, segments, [source], [copied], None, None)
    if copied.item() != 1.0:
        raise RuntimeError("a trial copy came out wrong")


def copy_segments(
    module: ModuleType,
    segments: Segments,
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    scale: NDArray[np.float32] | None,
    threads: int | None,
) -> None:
    """`megagrow.kernels.copy_segments` by a compiled module, without its checks."""
    read = addresses(segments.source, segments.source_start, sources)
    written = addresses(segments.destination, segments.destination_start, destinations)
    dtypes = _dtypes(sources, destinations)
    device = destinations[0].device
    if device.type == "cpu":
        workers = threads or torch.get_num_threads()
        module.copy(read, segments.length, segments.first, written, scale, *dtypes, workers)
        return
    tiles = _first_tiles(segments.length, module.TILE)
    scales = [] if scale is None else [scale]
    with torch.cuda.device(device):
        table = _upload([read, segments.length, tiles, segments.first, written], scales, device)
        shape = (len(read), len(written), scale is not None, int(tiles[-1]))
        module.copy(table.data_ptr(), *shape, *dtypes, _stream(device), device.index)


def combine_segments(
    module: ModuleType,
    combination: Combination,
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    noise: Noise | None,
    threads: int | None,
) -> None:
    """`megagrow.kernels.combine_segments` by a compiled module, without its checks."""
    written = addresses(combination.destination, combination.destination_start, destinations)
    read = addresses(combination.source, combination.source_start, sources)
    dtypes = _dtypes(sources or destinations, destinations)
    device = destinations[0].device
    seed = 0 if noise is None else noise.seed
    std = np.zeros(len(written), dtype=np.float32) if noise is None else noise.std
    start = np.zeros(len(written), dtype=np.uint64) if noise is None else noise.start
    runs = (written, combination.length, combination.first)
    if device.type == "cpu":
        workers = threads or torch.get_num_threads()
        terms = (read, combination.weight)
        module.combine(*runs, *terms, std, start, seed, *dtypes, workers)
        return
    tiles = _first_tiles(combination.length, module.TILE)
    with torch.cuda.device(device):
        longs = [written, combination.length, tiles, combination.first, read, start]
        table = _upload(longs, [combination.weight, std], device)
        shape = (len(written), len(read), int(tiles[-1]))
        module.combine(table.data_ptr(), *shape, seed, *dtypes, _stream(device), device.index)


def _dtypes(sources: Sequence[Tensor], destinations: Sequence[Tensor]) -> tuple[int, int]:
    """The element types as csrc numbers them."""
    return DTYPES.index(sources[0].dtype), DTYPES.index(destinations[0].dtype)


def _first_tiles(length: NDArray[np.int64], tile: int) -> NDArray[np.int64]:
    """[n + 1] number of the first tile of each run, runs cut into tiles of `tile` elements."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(-(-length // tile))])


def _upload(
    longs: Sequence[NDArray[Any]],
    floats: Sequence[NDArray[np.float32]],
    device: torch.device,
) -> Tensor:
    """The columns one after the other on the device: those of 8 bytes, then those of 4.

    Torch's allocators keep the pinned copy until the transfer is done, and the device's until the
    kernel that is queued next on this stream is.
    """
    packed = b"".join(column.tobytes() for column in (*longs, *floats))
    pinned = torch.empty(len(packed), dtype=torch.uint8, pin_memory=True)
    pinned.numpy()[:] = np.frombuffer(packed, dtype=np.uint8)
    return pinned.to(device, non_blocking=True)


def _stream(device: torch.device) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream)
