"""One optimizer step of a model under any layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megagrow.model import forward_backward
from megagrow.model.forward_backward import GlobalBatch
from megagrow.model.trainable import ADDED_LR_MULT


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean cross-entropy per token of the global batch, in nats."""

    grad_norm: float
    """Global gradient norm before clipping; NaN if the loss was not finite."""

    updated: bool
    """Whether the weights changed; False if loss or gradient was not finite."""

    votes: tuple[int, ...]
    """How many ranks said yes to each question put to `train_step`."""


def train_step(
    chunks: Sequence[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    batch: GlobalBatch,
    *,
    learning_rate: float,
    learning_rate_of_added: float | None = None,
    votes: Sequence[bool] = (),
) -> StepResult:
    """Forward, backward, gradient reduction and update; call on every rank.

    A loss or gradient norm that is not finite leaves weights and moments untouched everywhere.

    Args:
        chunks: model chunks of this rank.
        optimizer: their optimizer.
        batch: this rank's share of the global batch.
        learning_rate: rate of this update.
        learning_rate_of_added: rate of the layers that the last growth added; unset: the same.
        votes: answers of this rank to questions that all ranks are asked.
    """
    for chunk in chunks:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    reduced = forward_backward.run(chunks, batch, forward_only=False, votes=votes)
    for group in optimizer.param_groups:
        own = learning_rate_of_added is not None and group["lr_mult"] == ADDED_LR_MULT
        group["lr"] = learning_rate_of_added if own else learning_rate
    grad_norm = _prepare_gradients(optimizer)
    # Only now: the norm has waited for the device anyway, and was queued while that was busy.
    loss, counted = reduced.read()
    if not math.isfinite(loss):
        return StepResult(loss=loss, grad_norm=math.nan, updated=False, votes=counted)
    updated = math.isfinite(grad_norm)
    if updated:
        optimizer.step_with_ready_grads()
    return StepResult(loss=loss, grad_norm=grad_norm, updated=updated, votes=counted)


def _prepare_gradients(optimizer: MegatronOptimizer) -> float:
    """Readies the gradients and clips them; the norm before clipping.

    The first half of `MegatronOptimizer.step`, so that a bad gradient can be refused before the
    second. Without experts there is one optimizer in the chain.
    """
    optimizer.prepare_grads()
    (part,) = optimizer.chained_optimizers
    clip = part.config.clip_grad
    return float(part.clip_grad_norm(clip) if clip > 0 else part.get_grad_norm())
