from __future__ import annotations

import json
from pathlib import Path

import pytest

from megagrow.data.manifest import (
    MANIFEST_NAME,
    FileStats,
    bucket_files,
    read_manifest,
    write_manifest,
)
from megagrow.errors import DataError


def stats(prefix: str, documents: int) -> FileStats:
    return FileStats(
        prefix=prefix, documents=documents, tokens=7, bytes=14, idx_sha256=f"of {prefix}"
    )


FILES = {"easy": [stats("easy", 3)], "hard": [stats("hard-00000", 1), stats("hard-00001", 2)]}


def write(folder: Path) -> dict[str, object]:
    return write_manifest(folder, vocab_size=9, eod=8, buckets=FILES, notes={"seed": 3})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert read_manifest(tmp_path) == written == json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert bucket_files(written) == FILES
    assert written["buckets"]["hard"]["documents"] == 3  # type: ignore[index]
    assert written["buckets"]["hard"]["tokens"] == 14  # type: ignore[index]
    assert (written["vocab_size"], written["eod"], written["seed"]) == (9, 8, 3)


def test_a_folder_without_one(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / MANIFEST_NAME).write_text('{"format": "of another tool"}')
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version 1, only 2 is known"),
        ({"buckets": ["easy"]}, "damaged"),
        ({"buckets": {"easy": {"files": [{"prefix": "easy"}]}}}, "damaged"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({**write(tmp_path), **change}))
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)


def test_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path)
