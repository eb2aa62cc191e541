from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megagrow.bucketing.writing import merge
from megagrow.bucketing.writing.part import Level


def source(number: int, documents: int, tokens: int) -> merge.Source:
    return merge.Source(
        folder=Path(str(number)),
        input=number,
        level=Level(documents=documents, tokens=tokens, crc32=0),
    )


def plan(levels: list[list[merge.Source]], tokens_per_file: int) -> list[merge.BucketFile]:
    names = [f"l{number}" for number in range(len(levels))]
    return merge.plan(
        Path("out"),
        names,
        levels,
        dtype=np.dtype("<u2"),
        tokens_per_file=tokens_per_file,
        scratch=Path("out/.work"),
    )


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=3),
    st.integers(1, 120),
)
def test_every_part_is_in_one_file_in_order(sizes: list[list[int]], limit: int) -> None:
    levels = [[source(n, min(s, 3), s) for n, s in enumerate(each)] for each in sizes]
    files = plan(levels, limit)
    for level, sources in enumerate(levels):
        mine = [file for file in files if file.level == level]
        kept = [each for file in mine for each in file.sources]
        assert kept == [each for each in sources if each.level.documents]
        for file in mine:
            tokens = sum(each.level.tokens for each in file.sources)
            assert tokens <= limit or len(file.sources) == 1
        for file, after in pairwise(mine):  # no file is needlessly small
            tokens = sum(each.level.tokens for each in file.sources)
            assert tokens + after.sources[0].level.tokens > limit
        suffixes = [f"-{number:05d}" for number in range(len(mine))] if len(mine) > 1 else [""]
        assert [file.prefix.name for file in mine] == [f"l{level}{each}" for each in suffixes][
            : len(mine)
        ]


def test_no_file_has_more_documents_than_megatron_can_number() -> None:
    most = merge.MAX_DOCUMENTS
    files = plan([[source(0, most - 1, 5), source(1, 1, 5), source(2, 1, 5)]], 10**9)
    assert [len(file.sources) for file in files] == [2, 1]


def test_files_are_appended_whole(tmp_path: Path) -> None:
    contents = [os.urandom(size) for size in (0, 7, 100_000)]
    with (tmp_path / "out").open("wb") as out:
        for number, content in enumerate(contents):
            (tmp_path / str(number)).write_bytes(content)
            merge._append(tmp_path / str(number), out)
    assert (tmp_path / "out").read_bytes() == b"".join(contents)
