from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megagrow.pipeline.redistribution.ownership import Block, Owned, column_cuts, spans


def test_the_strips_are_as_wide_as_all_blocks_allow() -> None:
    halves = [Block("w", 0, 0, 3, 4), Block("w", 0, 4, 3, 4)]
    quarters = [Block("w", 0, 2 * number, 3, 2) for number in range(4)]
    assert column_cuts(halves).tolist() == [0, 4, 8]
    assert column_cuts([*halves, *quarters]).tolist() == [0, 2, 4, 6, 8]


def test_a_block_of_one_strip_stays_in_one_piece() -> None:
    found = spans(Owned(Block("w", 2, 4, 3, 4), 5, 12), np.array([0, 4, 8]))
    assert (found.strip.tolist(), found.start.tolist()) == ([1], [2 * 4 + 5])
    assert (found.length.tolist(), found.offset.tolist()) == ([7], [0])


def test_a_block_of_two_strips_is_cut_row_by_row() -> None:
    found = spans(Owned(Block("w", 1, 0, 2, 8), 6, 13), np.array([0, 4, 8]))
    pieces = zip(found.strip, found.start, found.length, found.offset, strict=True)
    # The end of row 1, then row 2: all of its left half and one of its right.
    expected = [(1, 6, 2, 0), (0, 8, 4, 2), (1, 8, 1, 6)]
    assert [tuple(map(int, piece)) for piece in pieces] == expected


@given(st.data())
def test_spans_place_every_element_where_the_matrix_has_it(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    row, height = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(1, rows))
    column, width = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(1, columns))
    block = Block("w", row, column, min(height, rows - row), min(width, columns - column))
    edges = {0, columns, block.column, block.column + block.columns}
    cuts = np.array(sorted(edges | set(data.draw(st.sets(st.integers(0, columns))))))
    start = data.draw(st.integers(0, block.size - 1))
    stop = data.draw(st.integers(start + 1, block.size))
    matrix = np.arange(rows * columns).reshape(rows, columns)
    part = matrix[row : row + block.rows, column : column + block.columns].reshape(-1)
    strips = [matrix[:, low:high].reshape(-1) for low, high in pairwise(cuts)]
    seen = np.full(stop - start, -1)
    found = spans(Owned(block, start, stop), cuts)
    for strip, first, length, offset in zip(
        found.strip, found.start, found.length, found.offset, strict=True
    ):
        assert (seen[offset : offset + length] == -1).all()
        seen[offset : offset + length] = strips[strip][first : first + length]
    assert seen.tolist() == part[start:stop].tolist()
