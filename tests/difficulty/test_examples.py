from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from megagrow.difficulty.examples import check_sizes, level_numbers, sample
from megagrow.errors import DataError

zstandard = pytest.importorskip("zstandard")


def write(path: Path, rows: Sequence[object]) -> str:
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    if path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def rows(first: int, count: int) -> list[dict[str, object]]:
    return [
        {"text": f"text number {index}", "level": "ab"[index % 2]}
        for index in range(first, first + count)
    ]


def test_same_documents_in_any_order_of_rows(tmp_path: Path) -> None:
    found = []
    for name, part in (("a", rows(0, 200)), ("b", rows(0, 200)[::-1])):
        path = write(tmp_path / f"{name}.jsonl", part)
        found.append(sample([path], documents=50, seed=3, label_key="level"))
    assert sorted(found[0].texts) == sorted(set(found[0].texts))
    assert len(found[0].texts) == 50
    assert set(found[0].texts) <= {str(row["text"]) for row in rows(0, 200)}
    other = sample([str(tmp_path / "a.jsonl")], documents=50, seed=4)
    assert set(other.texts) != set(found[0].texts)
    assert other.labels is None


def test_all_formats_and_labels_stay_with_their_texts(tmp_path: Path) -> None:
    for number, suffix in enumerate(("jsonl", "jsonl.zst", "jsonl.gz")):
        write(tmp_path / f"{number}.{suffix}", rows(100 * number, 100))
    found = sample([str(tmp_path)], documents=10_000, seed=1, label_key="level")
    assert found.rows == len(found.texts) == 300
    assert found.labels is not None
    for text, label in zip(found.texts, found.labels, strict=True):
        assert label == "ab"[int(text.split()[-1]) % 2]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.Table.from_pylist([*rows(0, 40), {"text": None, "level": "a"}])
    parquet.write_table(table, tmp_path / "a.parquet")
    found = sample([str(tmp_path)], documents=100, seed=1, label_key="level")
    assert len(found.texts) == 40
    assert found.left_out == {"no text": 1}


def test_duplicates_come_once_and_never_on_both_sides(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(0, 300) + rows(0, 100))
    write(tmp_path / "b.jsonl", rows(200, 300))
    found = sample([str(tmp_path)], documents=10_000, seed=1)
    assert len(found.texts) == len(set(found.texts)) == 500
    assert found.left_out == {"duplicate": 200}
    held = found.held_out(0.3)
    assert 100 < held.sum() < 200
    # The side of a text depends on it and on the seed alone.
    sides = dict(zip(found.texts, held.tolist(), strict=True))
    again = sample([str(tmp_path / "b.jsonl")], documents=100, seed=1)
    assert all(
        sides[text] == side
        for text, side in zip(again.texts, again.held_out(0.3).tolist(), strict=True)
    )


def test_rows_without_a_text_or_label_are_counted(tmp_path: Path) -> None:
    bad: list[object] = [{"text": "x"}, {"level": "a"}, {"text": "", "level": "a"}, 7,
                         {"text": "y", "level": None}, {"text": "z", "level": True}]  # fmt: skip
    path = write(tmp_path / "a.jsonl", [*rows(0, 5), *bad, {"text": "w", "level": 3}])
    found = sample([path], documents=100, seed=1, label_key="level")
    assert found.left_out == {"no text": 3, "no label": 3}
    assert found.rows == 12
    assert found.labels is not None
    assert "3" in found.labels


def test_nothing_to_take_says_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(0, 5))
    with pytest.raises(
        DataError, match=r"none of 5 rows has a text in 'text' and a label in 'lev'"
    ):
        sample([path], documents=10, seed=1, label_key="lev")
    with pytest.raises(DataError, match="5 no text field"):
        sample([path], documents=10, seed=1, text_key="txt")


def test_unknown_labels_name_the_nearest() -> None:
    assert level_numbers(["b", "a", "b"], ["a", "b"]).tolist() == [1, 0, 1]
    with pytest.raises(DataError, match=r"'gradaute' of 2 documents.*did you mean graduate"):
        level_numbers(["gradaute", "graduate", "gradaute"], ["school", "graduate"])


def test_levels_with_too_few_documents() -> None:
    numbers = np.array([0] * 40 + [1] * 12)
    held = np.arange(52) % 4 == 0
    check_sizes(numbers, held, ["a", "b"])
    with pytest.raises(DataError, match="level b has 12 documents to train on and 0 held out"):
        check_sizes(numbers, held & (numbers == 0), ["a", "b"])
    with pytest.raises(DataError, match="level c has 0"):
        check_sizes(numbers, held, ["a", "b", "c"])
