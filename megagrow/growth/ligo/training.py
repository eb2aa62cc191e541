"""Training LiGO's matrices on the loss of the model they make, under any layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from megagrow.errors import TrainingError
from megagrow.growth.dealing import Gather, GatherShards, deal, make
from megagrow.growth.ligo.operator import Ligo
from megagrow.growth.ligo.settings import LigoSettings
from megagrow.growth.making import Making
from megagrow.pipeline.redistribution.fetches import Holdings
from megagrow.pipeline.redistribution.shards import Shards
from megagrow.runtime import processes
from megagrow.runtime.stopwatch import Stopwatch


def train_ligo(
    ligo: Ligo,
    jobs: Sequence[Making],
    new: Shards,
    gradients: Sequence[Tensor],
    gather: Gather,
    loss_of: Callable[[], float],
    settings: LigoSettings,
    *,
    staging_bytes: int,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Adam on the matrices; call on every rank, on which `ligo` is the same before and after.

    In each step the model is made and its loss differentiated as in training. The gradients of its
    weights, shard by shard, go to who made them, and from there into the matrices: so no process
    has more than its jobs' tensors whole.

    Args:
        ligo: the matrices.
        jobs: of `ligo_jobs`.
        new: this process's shards of the model; overwritten.
        gradients: for each of `new.owned` its flat gradient, once `loss_of` has run.
        gather: gives old tensors whole.
        loss_of: makes the model's weights of its master weights, computes the gradients of the next
            batch, and returns the mean loss.
        settings: how long and how fast.
        staging_bytes: memory for whole tensors, and for what is being sent and received.
        progress: told the steps that are done, and the loss.

    Returns:
        The loss before each step.

    Raises:
        TrainingError: a loss is not finite.
    """
    everyone = Holdings(processes.gather_objects(new.owned))
    watch = Stopwatch()
    collect = GatherShards(everyone, gradients, staging_bytes=staging_bytes, watch=watch)
    adam = torch.optim.Adam(ligo.parameters(), lr=settings.learning_rate)
    losses: list[float] = []
    for step in range(settings.steps):
        make(jobs, "param", new, gather, staging_bytes=staging_bytes, watch=watch)
        losses.append(loss_of())
        if not math.isfinite(losses[-1]):
            raise TrainingError(
                f"the loss is {losses[-1]} in step {step + 1} of {settings.steps} of learning to "
                "grow. The checkpoint of the stage before is intact: lower "
                "transition.learned.learning_rate and start again"
            )
        for matrix in ligo.parameters():
            matrix.grad = torch.zeros_like(matrix)
        for turn in deal(jobs, processes.world_size(), staging_bytes // torch.float32.itemsize):
            _differentiate(turn[processes.rank()], gather, collect)
        for matrix in ligo.parameters():
            if processes.world_size() > 1 and matrix.grad is not None:
                dist.all_reduce(matrix.grad)
        adam.step()
        progress(step + 1, losses[-1])
    return losses


def _differentiate(mine: Sequence[Making], gather: Gather, gradients: Gather) -> None:
    """Adds to the gradients of the matrices what comes through the tensors of some jobs."""
    given = gather("param", {key: size for job in mine for key, size in job.needs.items()})
    wanted = gradients("param", {key: size for job in mine for key, size in job.makes.items()})
    for job in mine:
        made = {key: tensor for key, tensor in job.weights(given).items() if tensor.requires_grad}
        if made:
            torch.autograd.backward(list(made.values()), [wanted[key] for key in made])
