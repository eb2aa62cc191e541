"""Sums of a table's entries over the ids of each document, exact in whatever batches they come.

Table entries are rounded to multiples of 2^-20. Sums of such numbers are exact in float64 while
they stay below 2^33, so neither the order of addition nor the width of the processor's vectors can
change a score: a document scores the same bits alone, in a batch, and on another machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

STEPS_PER_UNIT = 1 << 20
"""Table entries are multiples of one over this."""

LARGEST_ENTRY = 1 << 12
"""Magnitude that no entry may exceed: then sums over 2^21 ids, at least, are exact."""

# Ids gathered at once: what is gathered stays in the second-level cache.
_BLOCK_TOKENS = 1 << 15


def rounded(table: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The table with its entries rounded to multiples of 2^-20.

    Raises:
        DataError: an entry is not finite, or larger than `LARGEST_ENTRY`.
    """
    table = np.asarray(table, dtype=np.float64)
    if not np.isfinite(table).all() or np.abs(table).max(initial=0.0) > LARGEST_ENTRY:
        raise DataError(
            f"a scorer's table holds entries that are not finite or exceed {LARGEST_ENTRY}: "
            "it is damaged, or its fit failed; fit it again"
        )
    return np.round(table * STEPS_PER_UNIT) / STEPS_PER_UNIT


def mean_of_entries(
    table: NDArray[np.float64], tokens: TokenBatch, first: int | None = None
) -> NDArray[np.float64]:
    """Mean of `table[id]` over the ids of each document; 0 for a document without ids.

    Args:
        table: from `rounded`, shape [vocabulary].
        tokens: the documents.
        first: ids of each document to take, from its start; None for all.

    Returns:
        Means, shape [documents].

    Raises:
        DataError: an id outside the table.
    """
    lengths = tokens.lengths if first is None else np.minimum(tokens.lengths, first)
    sums = np.zeros(lengths.size)
    # Empty documents are left out: reduceat would give them the entry that follows.
    filled = np.flatnonzero(lengths)
    starts, sizes = tokens.offsets[filled], lengths[filled]
    ends = np.cumsum(sizes)
    position = 0
    while position < filled.size:
        done = ends[position - 1] if position else 0
        stop = max(position + 1, int(np.searchsorted(ends, done + _BLOCK_TOKENS, side="right")))
        block = slice(position, stop)
        ids = _joined(tokens, starts[block], sizes[block])
        entries = _gathered(table, ids)
        sums[filled[block]] = np.add.reduceat(entries, ends[block] - sizes[block] - done)
        position = stop
    return sums / np.maximum(lengths, 1)


def digest_of(description: Mapping[str, Any], *arrays: NDArray[Any]) -> str:
    """sha256 over what describes a scorer and its arrays, as hexadecimal text."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for array in arrays:
        little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{little_endian.dtype.str}{little_endian.shape}".encode())
        digest.update(little_endian.tobytes())
    return digest.hexdigest()


def _joined(
    tokens: TokenBatch, starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.integer[Any]]:
    """The ids of some documents, one after the other."""
    span = int(starts[-1] + sizes[-1] - starts[0])
    if span == int(sizes.sum()):  # nothing is cut off between them
        return tokens.flat[starts[0] : starts[0] + span]
    pairs = zip(starts.tolist(), (starts + sizes).tolist(), strict=True)
    return np.concatenate([tokens.flat[start:end] for start, end in pairs])


def _gathered(table: NDArray[np.float64], ids: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    try:
        if ids.dtype.kind == "u" or ids.min() >= 0:  # take() would count negative ids from the end
            return table.take(ids)
    except IndexError:
        pass
    raise DataError(
        f"ids from {ids.min()} to {ids.max()} do not fit a scorer for {table.size} ids: "
        "score with the tokenizer that it was made for"
    )
