"""The token ids of many documents as two arrays, which is how they are scored and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Documents one after the other, without end-of-document ids."""

    flat: NDArray[np.integer[Any]]
    """Ids of all documents, shape [tokens]; uint32 from the fast engine."""

    offsets: NDArray[np.int64]
    """Document i is `flat[offsets[i]:offsets[i + 1]]`; shape [documents + 1], from 0."""

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.offsets.size - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Ids in each document, shape [documents]."""
        return np.diff(self.offsets)

    @staticmethod
    def of(documents: Sequence[Sequence[int]]) -> TokenBatch:
        """From one list of ids for each document."""
        offsets = np.zeros(len(documents) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in documents], out=offsets[1:])
        flat = np.fromiter(
            (identity for each in documents for identity in each), np.uint32, int(offsets[-1])
        )
        return TokenBatch(flat=flat, offsets=offsets)
