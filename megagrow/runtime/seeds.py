"""Randomness as a pure function of the run's seed, so that no generator state is ever saved."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

from megagrow.runtime import groups

_NUMPY_BITS = 32


def seed_for(seed: int, *parts: str | int) -> int:
    """A stable 63-bit number made from ``seed`` and ``parts``; the same on every machine.

    Each part is told apart by kind and length, so ``("a", "bc")`` and ``("ab", "c")``, or ``1``
    and ``"1"``, give different numbers.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        kind = "i" if isinstance(part, int) else "s"
        text = str(part).encode()
        digest.update(f"{kind}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "big") >> 1


def seed_step(seed: int, step: int) -> None:
    """Seed every generator for one training step.

    What a rank draws depends only on ``(seed, step)`` and its place: replicas differ, pipeline
    stages differ, and within a tensor-parallel group the default generator agrees (it drops out
    whole activations) while megatron-core's tracker differs (it drops out each rank's part).
    A resumed run therefore draws what the unbroken one would have drawn.

    Needs parallel groups (:func:`megagrow.runtime.groups.set_up`).
    """
    from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

    # megatron-core adds small offsets per tensor and expert rank, and the tracker refuses equal
    # seeds: leave room above by using 62 bits. Stage and replica are hashed in.
    place = seed_for(seed, "step", step, groups.data_rank(), groups.pipeline_rank()) >> 1
    random.seed(place)
    np.random.seed(place % (1 << _NUMPY_BITS))
    torch.manual_seed(place)
    model_parallel_cuda_manual_seed(place)
