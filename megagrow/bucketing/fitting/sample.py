"""A seeded sample of documents over many shards, to fit thresholds and counts on.

Every document of the chosen shards has the same chance, wherever in its shard it is. What is
chosen depends on the seed and the shards' contents, not on their order or on the workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megagrow.bucketing.pool import Report
from megagrow.bucketing.reading.rows import read
from megagrow.bucketing.reading.shards import Shard, check_unchanged
from megagrow.bucketing.writing.part import Advance


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How many documents to take from a shard."""

    shard: Shard
    """The shard."""

    documents: int
    """How many; all of them, where it has fewer."""

    seed: int
    """Seed of the choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextKey:
    """What a worker needs to draw: the field or column that holds the text."""

    name: str
    """Its name."""

    def open(self) -> str:
        """The name."""
        return self.name


def draws(shards: Sequence[Shard], *, documents: int, most_shards: int, seed: int) -> list[Draw]:
    """Which shards to sample, and how much of each: in proportion to their sizes.

    Args:
        shards: all of them.
        documents: how many documents to draw, rounded up for each shard.
        most_shards: how many shards to read.
        seed: seed of the choice.
    """
    filled = [shard for shard in shards if shard.size]
    chosen = sorted(filled, key=lambda shard: _rank(shard, seed))[:most_shards]
    chosen.sort(key=lambda shard: shard.location)
    total = sum(shard.size for shard in chosen)
    return [
        Draw(shard=shard, documents=-(-documents * shard.size // total), seed=seed)
        for shard in chosen
    ]


def draw(task: Draw, key: str, report: Report) -> list[str]:
    """The sampled texts of a shard, in its order.

    Raises:
        DataError: the shard is damaged, or changed since the job began.
    """
    check_unchanged(task.shard)
    generator = np.random.default_rng(list(_rank(task.shard, task.seed)))
    kept: list[tuple[float, int, str]] = []
    limit, consumed = 1.0, 0
    for rows in read(task.shard, key=key):
        keys = generator.random(len(rows.texts))
        for place in np.flatnonzero(keys < limit).tolist():
            kept.append((float(keys[place]), int(rows.numbers[place]), rows.texts[place]))
        if len(kept) > 2 * task.documents:
            kept = sorted(kept)[: task.documents]
            limit = kept[-1][0]
        report(Advance(input_bytes=rows.consumed - consumed, text_bytes=0, tokens=0, documents=0))
        consumed = rows.consumed
    kept = sorted(kept)[: task.documents]
    return [text for _, _, text in sorted(kept, key=lambda each: each[1])]


def _rank(shard: Shard, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {shard.fingerprint}".encode()).digest()
