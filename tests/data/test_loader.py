from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megagrow.config.schema import (
    BatchConfig,
    DataConfig,
    LearningRateConfig,
    ModelConfig,
    ParallelConfig,
    StageConfig,
)
from megagrow.curriculum import Sample, SamplerState, initial_state, next_batch, rank_share
from megagrow.data.buckets import open_buckets
from megagrow.data.dataset import open_datasets
from megagrow.data.loader import Batch, BatchReader
from megagrow.errors import DataError, LayoutError
from tests.data.indexed_files import counting, write

CPU = torch.device("cpu")
SEQ = 4


class Counting:
    """Sample k is k, k+1, ... k+SEQ."""

    def __getitem__(self, index: int) -> np.ndarray:
        if index == 666:
            raise OSError("disk gone")
        return np.arange(index, index + SEQ + 1)


def reader(**changes: Any) -> BatchReader:
    settings: dict[str, Any] = {"seq_length": SEQ, "vocab_size": 1000, "device": CPU}
    return BatchReader({"b": Counting()}, **(settings | changes))


def steps(*batches: Sequence[int]) -> Iterator[tuple[list[Sample], int]]:
    for number, batch in enumerate(batches):
        yield [("b", index) for index in batch], number


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("batch-reader")]


def test_micro_batches_hold_the_samples_in_order() -> None:
    batches = list(reader().read(steps([0, 10, 20, 30], [40, 50, 60, 70]), micro_size=2))
    assert [batch.state for batch in batches] == [0, 1]
    assert [len(batch.micro_batches) for batch in batches] == [2, 2]
    micro = batches[1].micro_batches[1]
    assert micro.tokens.tolist() == [[60, 61, 62, 63], [70, 71, 72, 73]]
    assert micro.labels.tolist() == [[61, 62, 63, 64], [71, 72, 73, 74]]
    assert micro.position_ids.tolist() == [[0, 1, 2, 3]] * 2
    assert micro.tokens.dtype == micro.labels.dtype == micro.position_ids.dtype == torch.int64
    assert micro.tokens.is_contiguous()
    assert micro.labels.is_contiguous()
    assert micro.position_ids is batches[0].micro_batches[0].position_ids
    assert threads() == []


def test_one_batch_is_read_ahead_and_no_more() -> None:
    drawn: list[int] = []
    third = threading.Event()

    def source() -> Iterator[tuple[list[Sample], int]]:
        for number in range(10):
            drawn.append(number)
            if number == 2:
                third.set()
            yield [("b", number)], number

    batches = reader().read(source(), micro_size=1)
    assert next(batches).state == 0
    assert next(batches).state == 1
    assert third.wait(10)
    assert not threading.Event().wait(0.05)
    assert drawn == [0, 1, 2]
    batches.close()  # type: ignore[attr-defined]
    assert drawn == [0, 1, 2]
    assert threads() == []


def test_reading_happens_in_another_thread() -> None:
    names: list[str] = []

    class Spy(Counting):
        def __getitem__(self, index: int) -> np.ndarray:
            names.append(threading.current_thread().name)
            return super().__getitem__(index)

    batches = BatchReader({"b": Spy()}, seq_length=SEQ, vocab_size=1000, device=CPU)
    assert len(list(batches.read(steps([1], [2]), micro_size=1))) == 2
    assert len(names) == 2
    assert all(name.startswith("batch-reader") for name in names)


def test_an_error_comes_at_its_batch_and_ends_the_thread() -> None:
    batches = reader().read(steps([0], [1], [666], [3]), micro_size=1)
    assert next(batches).state == 0
    assert next(batches).state == 1
    with pytest.raises(OSError, match="disk gone"):
        next(batches)
    assert threads() == []


def test_an_error_of_the_source_comes_through() -> None:
    def source() -> Iterator[tuple[list[Sample], int]]:
        yield [("b", 0)], 0
        raise ValueError("no more")

    batches = reader().read(source(), micro_size=1)
    assert next(batches).state == 0
    with pytest.raises(ValueError, match="no more"):
        next(batches)


def test_ranks_that_need_no_data_read_none_but_keep_count() -> None:
    batches = list(reader(reads=False).read(steps([666], [666]), micro_size=1))
    assert [(batch.micro_batches, batch.state) for batch in batches] == [((), 0), ((), 1)]


@pytest.mark.parametrize(("vocab", "wrong"), [(24, 24), (25, None)])
def test_an_id_beyond_the_vocabulary_never_gets_out(vocab: int, wrong: int | None) -> None:
    batches = reader(vocab_size=vocab).read(steps([0, 20]), micro_size=1)
    if wrong is None:
        assert len(next(batches).micro_batches) == 2
        return
    with pytest.raises(
        DataError, match=r"bucket 'b': token id 24 in sample 20 .* vocabulary of 24"
    ):
        next(batches)


def test_a_negative_id_never_gets_out() -> None:
    with pytest.raises(DataError, match="token id -3 in sample -3"):
        next(reader().read(steps([-3]), micro_size=1))


def test_a_share_that_does_not_divide() -> None:
    with pytest.raises(LayoutError, match=r"3 sequences .* micro-batches of 2: make"):
        next(reader().read(steps([1, 2, 3]), micro_size=2))


def real_batches(
    folder: Path, state: SamplerState, size: int, rank: int = 0, ranks: int = 1
) -> Iterator[Batch[SamplerState]]:
    data = DataConfig(path=str(folder), buckets={"x": ("x",), "y": ("y",)}, validation_fraction=0.1)
    stage = StageConfig(
        name="s",
        layers=1,
        tokens=1,
        mixture={"x": 0.75, "y": 0.25},
        mixture_end={"x": 0.25, "y": 0.75},
        model=ModelConfig(hidden_size=8, num_attention_heads=1, vocab_size=8, seq_length=8),
        parallel=ParallelConfig(),
        batch=BatchConfig(global_size=1, micro_size=1),
        learning_rate=LearningRateConfig(peak=1.0),
    )
    buckets = open_buckets(data, SEQ, 2000)
    datasets = open_datasets(buckets, data, seq_length=SEQ, vocab_size=2000, seed=1)

    def source() -> Iterator[tuple[Sequence[Sample], SamplerState]]:
        now = state
        while now.samples < 96:
            samples, now = next_batch(now, stage, size, 96)
            yield rank_share(samples, rank, ranks), now

    return BatchReader(datasets, seq_length=SEQ, vocab_size=2000, device=CPU).read(source(), 2)


def rows(batches: Sequence[Batch[Any]]) -> list[list[int]]:
    return [row for batch in batches for m in batch.micro_batches for row in m.tokens.tolist()]


def test_a_stop_anywhere_loses_and_repeats_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x", counting([7] * 60))
    write(tmp_path / "y", counting([7] * 60, start=1000))
    whole = rows(list(real_batches(tmp_path, initial_state("xy"), 8)))
    assert len(whole) == 96
    for taken in (1, 5):
        batches = real_batches(tmp_path, initial_state("xy"), 8)
        before = [next(batches) for _ in range(taken)]
        batches.close()  # type: ignore[attr-defined]
        saved = SamplerState.from_dict(before[-1].state.to_dict())
        # On with another batch size, and on two ranks.
        after = [list(real_batches(tmp_path, saved, 4, rank, 2)) for rank in range(2)]
        resumed = [row for pair in zip(*after, strict=True) for row in rows(pair)]
        assert rows(before) + resumed == whole


@pytest.mark.gpu
def test_cuda_batches_equal_those_on_the_cpu() -> None:
    cuda = torch.device("cuda", torch.cuda.current_device())
    sizes = [list(range(start, start + 64)) for start in range(0, 640, 64)]
    here = list(reader().read(steps(*sizes), micro_size=8))
    there = list(reader(device=cuda).read(steps(*sizes), micro_size=8))
    for one, other in zip(here, there, strict=True):
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True):
            assert b.tokens.device == cuda
            assert torch.equal(a.tokens, b.tokens.cpu())
            assert torch.equal(a.labels, b.labels.cpu())
            assert torch.equal(a.position_ids, b.position_ids.cpu())
