"""Small .bin/.idx files, written by megatron-core's own builder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from megagrow.config.schema import DataConfig
from megagrow.data.buckets import Bucket, open_buckets


def write(
    prefix: Path, documents: Sequence[Sequence[Sequence[int]]], dtype: type = np.uint16
) -> None:
    """Each document is a list of sequences of ids."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def counting(lengths: Sequence[int], start: int = 0) -> list[list[list[int]]]:
    """Documents of the given lengths, one sequence each; every token of all of them is another."""
    documents = []
    for length in lengths:
        documents.append([list(range(start, start + length))])
        start += length
    return documents


def bucket_of(
    folder: Path, *prefixes: str, name: str = "b", seq_length: int = 4, vocab: int = 60000
) -> Bucket:
    data = DataConfig(path=str(folder), buckets={name: prefixes})
    return open_buckets(data, seq_length, vocab)[name]
