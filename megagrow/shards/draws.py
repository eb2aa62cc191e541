"""Which shards a seeded sample reads, and how many documents it takes from each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from megagrow.shards.shard import Shard


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How many documents to take from a shard."""

    shard: Shard
    """The shard."""

    documents: int
    """How many; all of them, where it has fewer."""

    seed: int
    """Seed of the choice."""


def draws(shards: Sequence[Shard], *, documents: int, most_shards: int, seed: int) -> list[Draw]:
    """Which shards to sample, and how much of each: in proportion to their sizes.

    Args:
        shards: all of them.
        documents: how many documents to draw, rounded up for each shard.
        most_shards: how many shards to read.
        seed: seed of the choice.
    """
    filled = [shard for shard in shards if shard.size]
    chosen = sorted(filled, key=lambda shard: rank(shard, seed))[:most_shards]
    chosen.sort(key=lambda shard: shard.location)
    total = sum(shard.size for shard in chosen)
    return [
        Draw(shard=shard, documents=-(-documents * shard.size // total), seed=seed)
        for shard in chosen
    ]


def rank(shard: Shard, seed: int) -> bytes:
    """A number that only seed and content decide."""
    return hashlib.sha256(f"{seed} {shard.fingerprint}".encode()).digest()
