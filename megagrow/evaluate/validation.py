"""Validation loss per difficulty bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import torch
from megatron.core.distributed import DistributedDataParallel

from megagrow.curriculum import rank_share
from megagrow.data.dataset import BucketDataset
from megagrow.data.loader import BatchReader, MicroBatch
from megagrow.model import forward_backward
from megagrow.model.forward_backward import GlobalBatch
from megagrow.runtime import groups


@torch.no_grad()
def validation_losses(
    chunks: Sequence[DistributedDataParallel],
    datasets: Mapping[str, BucketDataset],
    *,
    sequences: int,
    micro_size: int,
    vocab_size: int,
) -> dict[str, float]:
    """Mean cross-entropy per token of every bucket's first held-out sequences, in nats.

    As many sequences as divide evenly over replicas and micro-batches, up to `sequences`, count; a
    bucket with fewer sequences than replicas is left out. Call on every rank.

    Args:
        chunks: model chunks of this rank.
        datasets: validation part of each bucket.
        sequences: sequences per bucket, at most.
        micro_size: sequences in a micro-batch, at most.
        vocab_size: ids at or above it are refused.
    """
    for chunk in chunks:
        chunk.eval()
    losses: dict[str, float] = {}
    for name, dataset in datasets.items():
        available = min(sequences, len(dataset))
        size, count = _division(available, micro_size, interleaved=len(chunks) > 1)
        if count > 0:
            data = _read(name, dataset, size, count, vocab_size)
            batch = GlobalBatch(
                data=data, count=count, micro_size=size, seq_length=dataset.seq_length
            )
            losses[name], _ = forward_backward.run(chunks, batch, forward_only=True).read()
    for chunk in chunks:
        chunk.train()
    return losses


def _division(available: int, micro_size: int, *, interleaved: bool) -> tuple[int, int]:
    """Size and number of micro-batches per replica that use the most of `available` sequences."""
    multiple = groups.pipeline_size() if interleaved else 1
    options = [
        (size, available // (groups.data_size() * size) // multiple * multiple)
        for size in range(1, micro_size + 1)
    ]
    return max(options, key=lambda option: (option[0] * option[1], option[0]))


def _read(
    name: str, dataset: BucketDataset, size: int, count: int, vocab_size: int
) -> Sequence[MicroBatch]:
    samples = [(name, index) for index in range(size * count * groups.data_size())]
    reader = BatchReader(
        {name: dataset},
        seq_length=dataset.seq_length,
        vocab_size=vocab_size,
        reads=groups.is_first_stage() or groups.is_last_stage(),
    )
    share = rank_share(samples, groups.data_rank(), groups.data_size())
    with closing(reader.read([(share, None)], size)) as batches:  # type: ignore[type-var]
        return next(batches).micro_batches
