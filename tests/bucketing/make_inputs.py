"""Small shards like DCLM's, and a tokenizer for them, made on the spot from a seed."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import orjson
import zstandard

from megagrow.tokenization.tokenizer import train_bpe

_EASY = ("the", "cat", "sat", "on", "a", "mat", "and", "it", "was", "happy", "we", "go", "to")
_HARD = (
    "stochastic",
    "covariance",
    "eigenvalue",
    "heteroscedastic",
    "manifold",
    "équation",
    "漢字",
)


def write_shards(
    folder: Path, seed: int, shards: int, documents: int, suffix: str = ".jsonl.zst"
) -> list[Path]:
    """Writes shards of records with DCLM's fields, from easy to hard; returns their paths.

    Args:
        folder: made where it does not exist.
        seed: other seed, other texts.
        shards: how many files.
        documents: rows in each.
        suffix: `.jsonl`, `.jsonl.zst`, `.jsonl.zstd`, `.jsonl.gz` or `.parquet`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(shards):
        generator = random.Random(f"{seed} {number}")
        rows = [record(generator, number, row) for row in range(documents)]
        path = folder / f"shard_{number:08d}_processed{suffix}"
        write_rows(path, rows)
        paths.append(path)
    return paths


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes records as what the path's suffix says."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    if path.suffix in (".zst", ".zstd"):
        lines = zstandard.ZstdCompressor(level=3).compress(lines)
    elif path.suffix == ".gz":
        lines = gzip.compress(lines, mtime=0)
    path.write_bytes(lines)


def record(generator: random.Random, shard: int, row: int) -> dict[str, Any]:
    """One record, with a text of its own difficulty and length."""
    hardness = generator.random()
    words = [
        generator.choice(_HARD if generator.random() < hardness else _EASY)
        for _ in range(generator.randint(1, 120))
    ]
    text = " ".join(words).capitalize() + f". Number {generator.randint(0, 99_999)}.\n"
    return {
        "text": text,
        "url": f"https://example.org/{shard}/{row}",
        "warcinfo": "robots: classic\r\nhostname: ip-10-0-0-1\r\nformat: WARC File Format 1.1\r\n",
        "previous_word_count": len(words),
        "bff_contained_ngram_count_before_dedupe": 0,
        "language_id_whole_page_fasttext": {"en": round(generator.uniform(0.65, 1), 4)},
        "metadata": {"Content-Length": str(len(text)), "WARC-Type": "response"},
        "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob": generator.random(),
    }


def tiny_tokenizer(folder: Path, vocab_size: int = 400) -> Path:
    """Trains a small byte-level BPE for these texts; returns the path of its tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    texts = [record(generator, 0, row)["text"] for row in range(200)]
    path = folder / "tokenizer.json"
    train_bpe(texts, vocab_size, path)
    return path
