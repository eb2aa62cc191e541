"""The documents of a bucket as one list, whatever files they are in."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt
from megatron.core.datasets.indexed_dataset import IndexedDataset

from megagrow.data.buckets import Bucket
from megagrow.errors import DataError


def open_documents(bucket: Bucket) -> IndexedDataset | BucketDocuments:
    """The documents of a bucket, in an order that depends only on how its files are listed.

    One file of whole documents needs nothing around it, and is read about a tenth faster without.

    Raises:
        DataError: a document is longer than megatron-core can count.
    """
    if len(bucket.parts) == 1 and bucket.parts[0].whole:
        return IndexedDataset(bucket.prefixes[0])
    return BucketDocuments(bucket)


class BucketDocuments:
    """Several ``IndexedDataset`` files behind the part of its interface that ``GPTDataset`` uses.

    An item is a document. In a plain ``IndexedDataset`` it is a sequence, so ``GPTDataset`` would
    tear documents apart that were stored sentence by sentence.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.path_prefix = bucket.prefixes[0]
        self._parts = [IndexedDataset(prefix) for prefix in bucket.prefixes]
        self._first_sequences = [part.document_indices for part in self._parts]
        #: Tokens of each document, int32 as ``GPTDataset`` needs them.
        self.sequence_lengths = _lengths(bucket, self._parts)
        counts = [len(first) - 1 for first in self._first_sequences]
        self._starts = np.concatenate(([0], np.cumsum(counts)))[:-1].tolist()

    def __len__(self) -> int:
        return len(self.sequence_lengths)

    def get(self, idx: int, offset: int = 0, length: int | None = None) -> npt.NDArray[np.integer]:
        """Tokens of document ``idx`` from ``offset`` on, ``length`` of them or to its end."""
        if length is None:
            length = int(self.sequence_lengths[idx]) - offset
        number = bisect_right(self._starts, idx) - 1
        sequence = self._first_sequences[number][idx - self._starts[number]]
        # The sequences of a document follow each other in the file, so this may run over several.
        tokens: npt.NDArray[np.integer] = self._parts[number].get(sequence, offset, length)
        return tokens


def _lengths(bucket: Bucket, parts: list[IndexedDataset]) -> npt.NDArray[np.int32]:
    lengths = []
    for summary, part in zip(bucket.parts, parts, strict=True):
        if summary.whole:
            lengths.append(part.sequence_lengths)
            continue
        ends = np.concatenate(([0], np.cumsum(part.sequence_lengths, dtype=np.int64)))
        tokens = np.diff(ends[part.document_indices])
        if tokens.max(initial=0) > np.iinfo(np.int32).max:
            raise DataError(
                f"bucket {bucket.name!r}: document {int(tokens.argmax())} of {summary.prefix} has "
                f"{int(tokens.max())} tokens, megatron-core reads up to 2^31 - 1: split it"
            )
        lengths.append(tokens.astype(np.int32))
    return lengths[0] if len(lengths) == 1 else np.concatenate(lengths)
