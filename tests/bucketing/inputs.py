"""Shards in every format, and small tokenizers, for the tests of bucketing."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import zstandard

from megagrow.tokenization.tokenizer import Tokenizer, train_bpe
from tests.bucketing.make_inputs import record


def records(seed: int, documents: int) -> list[dict[str, Any]]:
    """Rows like DCLM's."""
    generator = random.Random(seed)
    return [record(generator, seed, row) for row in range(documents)]


def jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def write(path: Path, content: bytes) -> Path:
    """Writes bytes, packed as the name's end says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".zst", ".zstd"):
        content = zstandard.ZstdCompressor().compress(content)
    elif path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes rows as parquet, a few to a row group."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"text": [row["text"] for row in rows], "url": [row["url"] for row in rows]})
    parquet.write_table(table, path, row_group_size=7)
    return path


def write_shards(
    folder: Path, *, shards: int = 3, documents: int = 40, suffix: str = ".jsonl.zst"
) -> list[list[dict[str, Any]]]:
    """Shards of different sizes; returns the rows of each."""
    found = [records(number, documents + 10 * number) for number in range(shards)]
    for number, rows in enumerate(found):
        path = folder / f"shard_{number:08d}_processed{suffix}"
        if suffix == ".parquet":
            folder.mkdir(parents=True, exist_ok=True)
            write_parquet(path, rows)
        else:
            write(path, jsonl(rows))
    return found


def tokenizer(folder: Path) -> Tokenizer:
    """A BPE tokenizer of 400 ids, at `folder/tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [row["text"] for row in records(0, 60)]
    return train_bpe(texts, 400, folder / "tokenizer.json")
