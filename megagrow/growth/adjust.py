"""What growth changes in the tensors that it has copied: zeros, noise, scaled moments.

All of it is elementwise, and the noise a function of an element's place in its tensor, so shards
are changed where they are and the result is the same under every layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from itertools import chain

import numpy as np
import torch

from megagrow.growth.keys import is_residual_output, layer_of
from megagrow.growth.moments import MomentPolicy
from megagrow.growth.plan import GrowthPlan
from megagrow.kernels import Combination, Noise, combine_segments
from megagrow.model.shape import ModelShape
from megagrow.pipeline.redistribution.ownership import Owned
from megagrow.pipeline.redistribution.shards import Shards

SeedOf = Callable[[str], int]
"""The seed of a tensor's noise, by its key."""


def adjust(
    shards: Shards,
    growth: GrowthPlan,
    moments: MomentPolicy,
    shape: ModelShape,
    seed_of: SeedOf,
    *,
    complete: Collection[str] = (),
) -> None:
    """Changes grown master weights and moments in place.

    Args:
        shards: what this process holds of the grown model.
        growth: the plan it was grown by.
        moments: what happens to moments.
        shape: the grown model.
        seed_of: seeds of the noise.
        complete: keys of weights that need no zeros and no noise any more.
    """
    for owned, weight in chain(
        zip(shards.owned, shards.tensors["param"], strict=True),
        zip(shards.frozen, shards.frozen_tensors, strict=True),
    ):
        key = owned.block.key
        if key in complete:
            continue
        if layer_of(key) in growth.zeroed and is_residual_output(key):
            weight.zero_()
        elif growth.noise:
            mix_noise(owned, weight, growth.noise, noise_std(key, shape), seed_of(key))
    for kind, factor in zip(("exp_avg", "exp_avg_sq"), moments.scale, strict=True):
        if factor != 1 and moments.kept:
            for moment in shards.tensors[kind]:  # type: ignore[index]
                moment.mul_(factor)


def noise_std(key: str, shape: ModelShape) -> float:
    """Standard deviation of the noise for a tensor; 0 for norms and biases.

    arXiv 2405.15319, appendix on function preservation: variance 1 / (d l^2) for the two output
    projections of a layer, 2 / (5 d) for other matrices and embeddings; d the hidden size, l the
    layers of the grown model.
    """
    if key.endswith("bias") or "norm" in key:
        return 0.0
    if is_residual_output(key):
        return 1 / (math.sqrt(shape.hidden_size) * shape.num_layers)
    return math.sqrt(2 / (5 * shape.hidden_size))


def mix_noise(owned: Owned, weight: torch.Tensor, share: float, std: float, seed: int) -> None:
    """Makes a run of elements (1 - share) W + share e, in place, computed in fp32.

    The counter of an element of e is its row and column in the whole tensor.

    Args:
        owned: which elements `weight` is.
        weight: [n] flat.
        share: of the noise, from 0 to 1.
        std: its standard deviation; 0 leaves the weights as they are.
        seed: of the tensor's noise.
    """
    if std == 0:
        return
    columns = owned.block.columns
    rows = np.arange(owned.start // columns, -(-owned.stop // columns))
    low = np.maximum(rows * columns, owned.start)
    length = np.minimum((rows + 1) * columns, owned.stop) - low
    counter = (rows + owned.block.row).astype(np.uint64) << np.uint64(32)
    counter += (low - rows * columns + owned.block.column).astype(np.uint64)
    none = np.zeros(0, dtype=np.int64)
    noise = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    combine_segments(
        Combination(
            destination=np.zeros(len(rows), dtype=np.int64),
            destination_start=low - owned.start,
            length=length,
            first=np.zeros(len(rows) + 1, dtype=np.int64),
            source=none,
            source_start=none,
            weight=none.astype(np.float32),
        ),
        [],
        [noise],
        noise=Noise(seed=seed, std=np.full(len(rows), std, dtype=np.float32), start=counter),
    )
    weight.copy_(noise.mul_(share).add_(weight.float(), alpha=1 - share))
