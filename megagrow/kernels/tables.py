"""What both kernels ask of the tensors and of the tables that point into them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The element types; a kernel casts from any of them to any other. The order is that of csrc."""


def check_columns(what: str, columns: dict[str, Integers], length: int | None = None) -> int:
    """Checks that columns are int64, one-dimensional and of one length; returns the length.

    Raises:
        ValueError: names the column that is not.
    """
    for name, column in columns.items():
        if column.dtype != np.int64 or column.ndim != 1:
            raise ValueError(f"{what}.{name} must be a one-dimensional numpy array of int64")
        if length is None:
            length = len(column)
        if len(column) != length:
            raise ValueError(f"{what}.{name} has {len(column)} entries instead of {length}")
    return 0 if length is None else length


def check_first(what: str, first: Integers, runs: int, members: int) -> None:
    """Checks a CSR row index: from 0 to `members` in `runs` steps that never go back.

    Raises:
        ValueError: names the first row that is wrong.
    """
    check_columns(what, {"first": first}, runs + 1)
    if first[0] != 0 or first[-1] != members:
        raise ValueError(
            f"{what}.first goes from {first[0]} to {first[-1]}, not from 0 to {members}"
        )
    back = np.flatnonzero(first[1:] < first[:-1])
    if len(back):
        row = int(back[0])
        raise ValueError(
            f"{what}.first goes back at row {row}: {first[row]}, then {first[row + 1]}"
        )


def check_tensors(sources: Sequence[Tensor], destinations: Sequence[Tensor]) -> None:
    """Checks that tensors are flat and contiguous, on one device, of one dtype on either side.

    Raises:
        ValueError: names the tensor that is not.
    """
    device = next((tensor.device for tensor in (*sources, *destinations)), None)
    for side, tensors in (("sources", sources), ("destinations", destinations)):
        for index, tensor in enumerate(tensors):
            what = f"{side}[{index}]"
            if tensor.dim() != 1 or not tensor.is_contiguous():
                raise ValueError(
                    f"{what} of shape {tuple(tensor.shape)} and strides {tensor.stride()} is not "
                    "flat and contiguous: pass tensor.contiguous().view(-1)"
                )
            if tensor.device != device:
                raise ValueError(f"{what} is on {tensor.device}, others on {device}: move it there")
            if tensor.dtype != tensors[0].dtype:
                raise ValueError(
                    f"{what} is {tensor.dtype}, {side}[0] {tensors[0].dtype}: call once per dtype"
                )
            if tensor.dtype not in DTYPES:
                raise ValueError(
                    f"{what} is {tensor.dtype}: only float32, bfloat16 and float16 are"
                )


def check_runs(
    side: str, index: Integers, start: Integers, length: Integers, tensors: Sequence[Tensor]
) -> None:
    """Checks that every run of elements lies inside the tensor it names.

    Args:
        side: `source` or `destination`, for the message.
        index: [n] which of `tensors`.
        start: [n] first element.
        length: [n] number of elements.
        tensors: what the runs point into.

    Raises:
        ValueError: names the first run that does not.
    """
    wrong = np.flatnonzero((index < 0) | (index >= len(tensors)))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{side} {row} names tensor {index[row]}, but there are {len(tensors)} {side}s"
        )
    sizes = np.array([tensor.numel() for tensor in tensors], dtype=np.int64)[index]
    # `length > sizes - start` cannot overflow where `start + length > sizes` could.
    wrong = np.flatnonzero((start < 0) | (start > sizes) | (length < 0) | (length > sizes - start))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{side} {row} takes {length[row]} elements from {start[row]} on, "
            f"but {side}s[{index[row]}] has {sizes[row]}"
        )


def addresses(index: Integers, start: Integers, tensors: Sequence[Tensor]) -> NDArray[np.uint64]:
    """[n] where each run begins in memory, in bytes."""
    if not tensors:
        return np.zeros(0, dtype=np.uint64)
    bases = np.array([tensor.data_ptr() for tensor in tensors], dtype=np.uint64)
    return bases[index] + (start * tensors[0].element_size()).astype(np.uint64)
