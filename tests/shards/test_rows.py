from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.errors import DataError
from megagrow.shards import blocks
from megagrow.shards.rows import read
from megagrow.shards.shard import look_at
from tests.bucketing import inputs

GOOD = b'{"text": "fine", "x": 1}'
BAD = {
    b"": "blank line",
    b"   ": "blank line",
    b'{"text": "\xff"}': "not UTF-8",
    b'{"text": "\\ud800"}': "lone surrogate",
    b'{"text": "cut': "not JSON",
    b'{"text": "a"} {"text": "b"}': "not JSON",
    b'["text"]': "not an object",
    b"3": "not an object",
    b'{"texts": "a"}': "no text field",
    b'{"text": null}': "text is null",
    b'{"text": ["a"]}': "text is not a string",
    b'{"text": ""}': "text is empty",
}


def read_all(path: Path, chunk_bytes: int = 1 << 20) -> tuple[list[tuple[int, str]], Counter[str]]:
    texts: list[tuple[int, str]] = []
    rejects: Counter[str] = Counter()
    rows = 0
    for chunk in read(look_at(str(path)), chunk_bytes=chunk_bytes):
        texts += zip(chunk.numbers.tolist(), chunk.texts, strict=True)
        rejects += chunk.rejects
        rows += chunk.count
        assert chunk.consumed <= path.stat().st_size
    assert rows == len(texts) + rejects.total()
    return texts, rejects


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".jsonl.zstd", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("chunk_bytes", [50, 1 << 20])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, chunk_bytes: int) -> None:
    (rows,) = inputs.write_shards(tmp_path, shards=1, suffix=suffix)
    (path,) = tmp_path.iterdir()
    texts, rejects = read_all(path, chunk_bytes)
    assert texts == [(number, row["text"]) for number, row in enumerate(rows)]
    assert not rejects


def test_every_bad_row_is_counted_with_its_reason(tmp_path: Path) -> None:
    lines = [line for bad in BAD for line in (GOOD, bad)] + [GOOD]
    path = inputs.write(tmp_path / "x.jsonl", b"\n".join(lines))
    texts, rejects = read_all(path)
    assert [number for number, _ in texts] == list(range(0, 2 * len(BAD) + 1, 2))
    assert rejects == Counter(BAD.values())


@settings(deadline=None, max_examples=60)
@given(
    lines=st.lists(st.sampled_from([GOOD, *BAD])),
    chunk_bytes=st.integers(1, 200),
    newline=st.booleans(),
)
def test_no_row_is_lost_wherever_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], chunk_bytes: int, newline: bool
) -> None:
    content = b"\n".join(lines) + (b"\n" if newline and lines else b"")
    path = inputs.write(tmp_path_factory.mktemp("rows") / "x.jsonl", content)
    texts, rejects = read_all(path, chunk_bytes)
    rows = content.split(b"\n")
    if rows[-1] == b"":  # nothing after the last newline is no row
        rows.pop()
    assert rejects == Counter(BAD[row] for row in rows if row != GOOD)
    assert [number for number, _ in texts] == [n for n, row in enumerate(rows) if row == GOOD]


def test_only_newlines_end_rows(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\r\nf\x00g\ufeff"
    content = b"\xef\xbb\xbf" + json.dumps({"text": odd}, ensure_ascii=False).encode() + b"\r\n"
    texts, rejects = read_all(inputs.write(tmp_path / "x.jsonl", content))
    assert texts == [(0, odd)]
    assert not rejects


def test_zstd_of_several_frames(tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    skippable = b"\x51\x2a\x4d\x18\x03\x00\x00\x00abc"
    content = pack(GOOD + b"\n" + GOOD[:9]) + skippable + pack(b"") + pack(GOOD[9:] + b"\n")
    (tmp_path / "x").write_bytes(content)
    assert read_all(tmp_path / "x")[0] == [(0, "fine"), (1, "fine")]


def test_gzip_of_several_members(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]))
    assert read_all(tmp_path / "x")[0] == [(0, "fine")]


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.9999])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    inputs.write_shards(tmp_path, shards=1, documents=300, suffix=suffix)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"shard_00000000_processed.*(truncated|damaged)"):
        read_all(path)


def test_a_truncated_frame_after_a_whole_one_is_refused(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(GOOD + b"\n")
    (tmp_path / "x").write_bytes(packed + packed[:-3])
    with pytest.raises(DataError, match="truncated"):
        read_all(tmp_path / "x")


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    inputs.write_shards(tmp_path, shards=1, documents=300, suffix=suffix)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|truncated"):
        read_all(path)


@pytest.mark.parametrize("content", [b"", zstandard.ZstdCompressor().compress(b"")])
def test_empty_files_have_no_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    assert read_all(tmp_path / "x.jsonl") == ([], Counter())


@pytest.mark.parametrize("chunk_bytes", [64, 4096, 1 << 20])
def test_huge_rows_are_counted_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(blocks, "LONGEST_LINE", 300)
    huge = [json.dumps({"text": "x" * size}).encode() for size in (289, 290, 5000)]
    assert [len(line) for line in huge[:2]] == [301, 302]
    longest = json.dumps({"text": "y" * 288}).encode()
    lines = [GOOD, huge[0], GOOD, huge[1], huge[2], longest, blocks.TOO_LONG + b"", huge[2]]
    texts, rejects = read_all(inputs.write(tmp_path / "x.jsonl", b"\n".join(lines)), chunk_bytes)
    assert texts == [(0, "fine"), (2, "fine"), (5, "y" * 288)]
    assert rejects == {"row too long": 4, "not JSON": 1}


def test_parquet_rows_are_measured_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megagrow.shards.rows.LONGEST_LINE", 10)
    rows = [{"text": text, "url": ""} for text in ("a" * 10, "a" * 11, "é" * 5, "é" * 6)]
    texts, rejects = read_all(inputs.write_parquet(tmp_path / "x.parquet", rows))
    assert [number for number, _ in texts] == [0, 2]
    assert rejects == {"row too long": 2}


def test_highly_compressible_files_are_not_unpacked_at_once(tmp_path: Path) -> None:
    row = json.dumps({"text": "a" * 100_000}).encode() + b"\n"
    path = inputs.write(tmp_path / "x.jsonl.zst", row * 3000)  # 300 MB in some KB
    assert path.stat().st_size < 100_000
    largest = max(sum(map(len, chunk)) for chunk, _ in blocks.lines(look_at(str(path))))
    assert largest < 160 << 20
    steady = [sum(map(len, chunk)) for chunk, _ in blocks.lines(look_at(str(path)))][1:]
    assert max(steady) < 32 * blocks.BLOCK_BYTES


def test_long_windows_are_named(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    packed = zstandard.ZstdCompressor(compression_params=parameters)
    stream = packed.compressobj()
    (tmp_path / "x").write_bytes(stream.compress(GOOD) + stream.flush())
    with pytest.raises(DataError, match="window above 128 MiB"):
        read_all(tmp_path / "x")


def test_another_text_key(tmp_path: Path) -> None:
    path = inputs.write(tmp_path / "x.jsonl", b'{"content": "a", "text": null}\n')
    (chunk,) = read(look_at(str(path)), key="content")
    assert chunk.texts == ["a"]


def test_parquet_without_the_column(tmp_path: Path) -> None:
    path = inputs.write_parquet(tmp_path / "x.parquet", inputs.records(0, 3))
    with pytest.raises(DataError, match=r"no column 'content'; it has text, url"):
        list(read(look_at(str(path)), key="content"))


def test_parquet_nulls_and_bad_utf8(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    raw = pa.array([b"good", None, b"", b"\xff"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)
    parquet.write_table(pa.table({"text": column}), tmp_path / "x.parquet")
    texts, rejects = read_all(tmp_path / "x.parquet")
    assert texts == [(0, "good")]
    assert rejects == {"text is null": 1, "text is empty": 1, "not UTF-8": 1}
