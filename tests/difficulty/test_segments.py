from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.difficulty import segments
from megagrow.difficulty.segments import digest_of, mean_of_entries, rounded
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

RAW = np.random.default_rng(0).normal(size=50) * 10
TABLE = rounded(RAW)
DOCUMENTS = st.lists(st.lists(st.integers(0, 49), max_size=40), max_size=20)


@given(DOCUMENTS, st.one_of(st.none(), st.integers(1, 30)))
def test_equals_exact_arithmetic(documents: list[list[int]], first: int | None) -> None:
    means = mean_of_entries(TABLE, TokenBatch.of(documents), first)
    for document, mean in zip(documents, means.tolist(), strict=True):
        ids = document[:first]
        total = sum((Fraction(TABLE[each]) for each in ids), Fraction(0))
        assert mean == float(total) / max(len(ids), 1)


@given(DOCUMENTS, st.integers(1, 60))
def test_same_bits_in_any_batches_and_blocks(documents: list[list[int]], block: int) -> None:
    together = mean_of_entries(TABLE, TokenBatch.of(documents))
    alone = [mean_of_entries(TABLE, TokenBatch.of([each]))[0] for each in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_BLOCK_TOKENS", block)
        in_blocks = mean_of_entries(TABLE, TokenBatch.of(documents))
    assert together.tolist() == alone == in_blocks.tolist()


def test_the_order_of_the_ids_does_not_change_a_bit() -> None:
    generator = np.random.default_rng(1)
    ids = generator.integers(0, 50, size=1000).astype(np.uint32)
    orders = [generator.permutation(ids) for _ in range(30)]
    offsets = np.array([0, ids.size])
    exact, loose = (
        {
            float(mean_of_entries(table, TokenBatch(flat=each, offsets=offsets))[0])
            for each in orders
        }
        for table in (TABLE, RAW)
    )
    assert len(exact) == 1
    assert len(loose) > 1  # entries that are not rounded


@pytest.mark.parametrize("documents", [[], [[]], [[], [], []]])
def test_nothing_to_add_up(documents: list[list[int]]) -> None:
    assert mean_of_entries(TABLE, TokenBatch.of(documents)).tolist() == [0.0] * len(documents)


@pytest.mark.parametrize("flat", [np.array([3, 50], np.uint32), np.array([3, -1], np.int64)])
def test_ids_outside_the_table_are_refused(flat: np.ndarray) -> None:
    with pytest.raises(DataError, match="do not fit a scorer for 50 ids"):
        mean_of_entries(TABLE, TokenBatch(flat=flat, offsets=np.array([0, 2])))


@pytest.mark.parametrize("entry", [np.nan, np.inf, 5000.0])
def test_damaged_tables_are_refused(entry: float) -> None:
    with pytest.raises(DataError, match="not finite or exceed"):
        rounded(np.array([1.0, entry]))


def test_digest_depends_on_all_it_is_given() -> None:
    arrays = np.array([1, 2], np.int64), np.array([1, 2], np.int32), np.array([[1, 2]], np.int64)
    digests = {digest_of({"a": 1}, each) for each in arrays} | {digest_of({"a": 2}, arrays[0])}
    assert len(digests) == 4
    assert digest_of({"a": 1, "b": 2}, arrays[0]) == digest_of({"b": 2, "a": 1}, arrays[0])
    assert digest_of({}, arrays[0]) == digest_of({}, arrays[0].astype(">i8"))
