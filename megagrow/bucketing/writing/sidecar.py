"""`NAME.documents.npy`: where each document of `NAME.bin` comes from, and its score.

It has one record for each document of `NAME.idx`, in the same order, so buckets can be cut again
at other scores without reading or tokenizing any text.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megagrow.errors import DataError

SIDECAR = np.dtype([("input", "<u4"), ("row", "<u4"), ("score", "<f4")])
"""Number of the input file in `inputs.jsonl`, row in it from 0, score."""


def sidecar_file(prefix: Path) -> Path:
    """Where the records of `prefix`.bin are."""
    return prefix.with_name(f"{prefix.name}.documents.npy")


def write_header(stream: IO[bytes], documents: int) -> None:
    """Begins a file of `documents` records, whose bytes are to follow."""
    header = {"descr": SIDECAR.descr, "fortran_order": False, "shape": (documents,)}
    np.lib.format.write_array_header_1_0(stream, header)


def load(prefix: Path) -> NDArray[Any]:
    """The records of a bucket, of type `SIDECAR`, mapped from the disk.

    Raises:
        DataError: there are none, or the file is something else.
    """
    file = sidecar_file(prefix)
    try:
        found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if found.dtype != SIDECAR or found.ndim != 1:
        raise DataError(f"{file}: not a file of document records")
    return found
