"""Named arrays in one .npz file, read without pickle and written at once."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Writes arrays under their names, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """The arrays of these names, in this order.

    Raises:
        DataError: the file cannot be read, is damaged, or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read: {reason}; save the scorer again") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: damaged, or no file of this scorer ({error}); save the scorer again"
        ) from None
