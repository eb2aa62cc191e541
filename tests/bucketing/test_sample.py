from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from megagrow.bucketing.fitting import sample as sample_module
from megagrow.bucketing.fitting.sample import draw
from megagrow.shards.draws import draws
from megagrow.shards.rows import read
from megagrow.shards.shard import Shard, find, look_at
from tests.bucketing import inputs


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    inputs.write_shards(tmp_path, shards=4, documents=200)
    return [look_at(each) for each in find([tmp_path])]


def sample(shards: list[Shard], documents: int, seed: int = 1) -> list[str]:
    tasks = draws(shards, documents=documents, most_shards=9, seed=seed)
    return [text for task in tasks for text in draw(task, "text", lambda work: None)]


def test_the_same_seed_draws_the_same_whatever_the_order(shards: list[Shard]) -> None:
    found = sample(shards, 100)
    assert 100 <= len(found) <= 104
    assert sample(shards[::-1], 100) == found
    assert sample(shards, 100, seed=2) != found


def test_all_documents_where_there_are_few(shards: list[Shard]) -> None:
    assert len(sample(shards, 10**6)) == 200 + 210 + 220 + 230


def test_shards_are_drawn_from_in_proportion(shards: list[Shard]) -> None:
    tasks = draws(shards, documents=100, most_shards=2, seed=1)
    assert len(tasks) == 2
    total = sum(task.shard.size for task in tasks)
    assert [task.documents for task in tasks] == [
        -(-100 * task.shard.size // total) for task in tasks
    ]


def test_empty_shards_are_not_drawn_from(tmp_path: Path) -> None:
    empty = look_at(str(inputs.write(tmp_path / "x.jsonl", b"")))
    assert draws([empty], documents=5, most_shards=5, seed=1) == []


def test_every_place_in_a_shard_has_the_same_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "read", partial(read, chunk_bytes=300))
    rows = [{"text": str(number)} for number in range(400)]
    path = inputs.write(tmp_path / "x.jsonl", inputs.jsonl(rows))
    counts = np.zeros(400)
    for seed in range(200):
        (task,) = draws([look_at(str(path))], documents=40, most_shards=1, seed=seed)
        counts[[int(text) for text in draw(task, "text", lambda work: None)]] += 1
    assert counts.sum() == 200 * 40
    assert counts[:200].mean() == pytest.approx(20, rel=0.05)
    assert counts.max() < 45
