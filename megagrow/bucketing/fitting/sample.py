"""A seeded sample of documents over many shards, to fit thresholds and counts on.

Every document of the chosen shards has the same chance, wherever in its shard it is. What is
chosen depends on the seed and the shards' contents, not on their order or on the workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megagrow.bucketing.pool import Advance, Report
from megagrow.shards.draws import Draw, rank
from megagrow.shards.rows import read
from megagrow.shards.shard import check_unchanged


@dataclass(frozen=True, kw_only=True, slots=True)
class TextKey:
    """What a worker needs to draw: the field or column that holds the text."""

    name: str
    """Its name."""

    def open(self) -> str:
        """The name."""
        return self.name


def draw(task: Draw, key: str, report: Report) -> list[str]:
    """The sampled texts of a shard, in its order.

    Raises:
        DataError: the shard is damaged, or changed since the job began.
    """
    check_unchanged(task.shard)
    generator = np.random.default_rng(list(rank(task.shard, task.seed)))
    kept: list[tuple[float, int, str]] = []
    limit, consumed = 1.0, 0
    for rows in read(task.shard, key=key):
        keys = generator.random(len(rows.texts))
        for place in np.flatnonzero(keys < limit).tolist():
            kept.append((float(keys[place]), int(rows.numbers[place]), rows.texts[place]))
        if len(kept) > 2 * task.documents:
            kept = sorted(kept)[: task.documents]
            limit = kept[-1][0]
        report(Advance(input_bytes=rows.consumed - consumed))
        consumed = rows.consumed
    kept = sorted(kept)[: task.documents]
    return [text for _, _, text in sorted(kept, key=lambda each: each[1])]
