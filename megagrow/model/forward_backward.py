"""Running a global batch through the pipeline, forward or forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func

from megagrow.runtime import device, groups, processes

if TYPE_CHECKING:
    from megagrow.data.loader import MicroBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalBatch:
    """This rank's share of one global batch."""

    data: Sequence[MicroBatch]
    """The micro-batches in order; empty on pipeline stages that read no data."""

    count: int
    """How many there are, on every stage."""

    micro_size: int
    """Sequences in each."""

    seq_length: int
    """Tokens in a sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalLoss:
    """The loss of a global batch, the same on every rank, and what the ranks had to say."""

    sums: torch.Tensor
    """Losses over all micro-batches and the ranks that hold them, then each vote over all ranks;
    shape [1 + votes], fp32, on the device."""

    count: int
    """How many losses are added up."""

    def read(self) -> tuple[float, tuple[int, ...]]:
        """Mean cross-entropy per token in nats, and how many ranks voted; waits for the device."""
        total, *votes = self.sums.tolist()
        return total / self.count, tuple(int(vote) for vote in votes)


def run(
    chunks: Sequence[DistributedDataParallel],
    batch: GlobalBatch,
    *,
    forward_only: bool,
    votes: Sequence[bool] = (),
) -> GlobalLoss:
    """The mean loss of a global batch, not waited for.

    Unless `forward_only`, the gradients of that mean are added to the chunks' gradient buffers
    and reduced. Call on every rank.

    `votes` are counted over all ranks on the way: a question that every step asks would otherwise
    cost a collective and a wait for the device of its own.
    """
    iterators = [iter(batch.data) if batch.data else repeat(None) for _ in chunks]
    losses = get_forward_backward_func()(
        forward_step_func=_forward,
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=batch.count,
        seq_length=batch.seq_length,
        micro_batch_size=batch.micro_size,
        forward_only=forward_only,
    )
    # From pinned memory: a plain copy would wait for the backward pass.
    sums = torch.tensor([0.0, *votes], pin_memory=device.is_cuda())
    sums = sums.to(device.device(), non_blocking=True)
    for entry in losses:  # empty but on the last pipeline stage
        sums[0] += entry["loss"]
    if processes.world_size() > 1:
        dist.all_reduce(sums)
    # Every tensor-parallel rank of the last stage holds the same loss.
    count = batch.count * groups.tensor_size() * groups.data_size()
    return GlobalLoss(sums=sums, count=count)


def _forward(
    micro_batches: Iterator[MicroBatch | None], model: torch.nn.Module
) -> tuple[torch.Tensor, Any]:
    batch = next(micro_batches)
    if batch is None:  # a stage in the middle: its input comes from the stage before
        return model(None, None, None), _mean
    return model(batch.tokens, batch.position_ids, None, labels=batch.labels), _mean


def _mean(losses: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = losses.float().mean()
    # The schedule divides the returned loss in place: keep a copy.
    return loss, {"loss": loss.detach().clone()}
