from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from megagrow.data import indexed
from megagrow.data.indexed import check_tokens, inspect
from megagrow.errors import DataError
from tests.data.indexed_files import counting, write


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    write(tmp_path / "shard.01", counting([3, 5, 2]))
    return tmp_path / "shard.01"


def patch(file: Path, offset: int, data: bytes) -> None:
    content = bytearray(file.read_bytes())
    content[offset : offset + len(data)] = data
    file.write_bytes(bytes(content))


def test_counts_documents_sequences_and_tokens(tmp_path: Path) -> None:
    write(tmp_path / "s", [[[1, 2], [3]], [[4, 5, 6]], []], dtype=np.int32)
    summary = inspect(tmp_path / "s")
    assert (summary.documents, summary.sequences, summary.tokens) == (3, 3, 6)
    assert summary.dtype == "int32"
    assert summary.prefix == str(tmp_path / "s")


def test_digest_follows_the_lengths_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "a", counting([3, 5]))
    write(tmp_path / "elsewhere" / "a", counting([3, 5]))
    write(tmp_path / "c", counting([5, 3]))
    write(tmp_path / "d", [[[0, 1, 2], [3, 4, 5, 6, 7]]])
    digests = [inspect(tmp_path / name).digest for name in ("a", "elsewhere/a", "c", "d")]
    assert digests[0] == digests[1]
    assert len(set(digests[1:])) == 3


def test_checks_in_pieces_find_what_one_piece_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s", counting([3] * 10))
    whole = inspect(tmp_path / "s")
    monkeypatch.setattr(indexed, "_CHUNK", 3)
    assert inspect(tmp_path / "s") == whole
    patch(tmp_path / "s.idx", 34 + 10 * 4 + 7 * 8, struct.pack("<q", 0))
    with pytest.raises(DataError, match=r"sequence 7 begins at byte 0, .* add up to 42"):
        inspect(tmp_path / "s")


@pytest.mark.parametrize("missing", ["bin", "idx"])
def test_one_of_the_two_files_is_missing(prefix: Path, missing: str) -> None:
    Path(f"{prefix}.{missing}").unlink()
    other = "idx" if missing == "bin" else "bin"
    with pytest.raises(DataError, match=rf"shard.01.{missing}: no such file; shard.01.{other} is"):
        inspect(prefix)


def test_bin_truncated(prefix: Path) -> None:
    file = Path(f"{prefix}.bin")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"19 bytes, but shard.01.idx says 10 tokens of uint16, 20 "
    ):
        inspect(prefix)


def test_bin_of_another_index(prefix: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", counting([3, 5, 3]))
    (tmp_path / "other.bin").replace(f"{prefix}.bin")
    with pytest.raises(DataError, match="do not belong together"):
        inspect(prefix)


# The header is 34 bytes, then 3 lengths of 4, 3 offsets of 8 and 4 document bounds of 8.
@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (0, b"GARBAGE", "not a Megatron index"),
        (9, struct.pack("<Q", 2), "index version 2, only version 1"),
        (17, b"\x07", "dtype code 7 is not one of token ids"),
        (17, b"\x04", "20 bytes, but .* 10 tokens of int32, 40 bytes|begins at byte"),
        (18, struct.pack("<Q", 4), "announces 4 sequences and 3 documents"),
        (18, struct.pack("<Q", 2**63), "announces"),
        (26, struct.pack("<Q", 0), "list of document bounds is empty"),
        (34 + 4, struct.pack("<i", -5), "sequence 1 has length -5"),
        (34 + 4, struct.pack("<i", 6), "sequence 2 begins at byte 16, but .* add up to 18"),
        (34 + 12 + 16, struct.pack("<q", 4), "sequence 2 begins at byte 4, but .* add up to 16"),
        (34 + 36, struct.pack("<q", 1), "documents run from sequence 1 to 3 instead of 0 to 3"),
        (34 + 36 + 24, struct.pack("<q", 2), "documents run from sequence 0 to 2 instead"),
        (34 + 36 + 8, struct.pack("<q", 3), "document 1 ends before it begins"),
    ],
)
def test_damaged_index(prefix: Path, offset: int, data: bytes, message: str) -> None:
    patch(Path(f"{prefix}.idx"), offset, data)
    with pytest.raises(DataError, match=message):
        inspect(prefix)


@pytest.mark.parametrize("size", [0, 5, 20, 34, 60, 101])
def test_index_truncated(prefix: Path, size: int) -> None:
    file = Path(f"{prefix}.idx")
    assert file.stat().st_size == 102
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DataError, match=r"shard\.01\.idx: (not a Megatron|the header is|.*trunc)"):
        inspect(prefix)


def test_a_valid_index_survives_no_flipped_structure_byte(prefix: Path) -> None:
    """Every byte after the lengths, and those of the header, is checked against something."""
    file = Path(f"{prefix}.idx")
    good = file.read_bytes()
    for place in range(len(good)):
        patch(file, place, bytes([good[place] ^ 0x55]))
        with pytest.raises(DataError):
            inspect(prefix)
        file.write_bytes(good)


def test_ids_beyond_the_vocabulary_are_found(tmp_path: Path) -> None:
    write(tmp_path / "s", [[[1, 2, 3]], [[4, 5], [6, 100]], [[7]]])
    summary = inspect(tmp_path / "s")
    check_tokens(summary, 101)
    with pytest.raises(DataError, match=r"s\.bin: token id 100 at token 6 \(document 1\) .* 100"):
        check_tokens(summary, 100)


def test_negative_ids_are_found(tmp_path: Path) -> None:
    write(tmp_path / "s", [[[1, -1, 3]]], dtype=np.int32)
    with pytest.raises(DataError, match="token id -1 at token 1"):
        check_tokens(inspect(tmp_path / "s"), 100)


def test_16_bit_ids_below_a_large_vocabulary_need_no_scan(prefix: Path) -> None:
    summary = inspect(prefix)
    Path(f"{prefix}.bin").unlink()
    check_tokens(summary, 65536)
    with pytest.raises(DataError, match="cannot be read"):
        check_tokens(summary, 65535)


def test_large_files_are_sampled_with_first_and_last_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexed, "_CHUNK", 10)
    write(tmp_path / "s", counting([10] * 50))
    summary = inspect(tmp_path / "s")
    read = list(indexed._blocks(500, 100, seed=3))
    assert len(read) == 10
    assert read == sorted(set(read))
    assert read[0] == 0
    assert read[-1] == 490
    assert list(indexed._blocks(500, 100, seed=4)) != read
    assert list(indexed._blocks(500, 500, seed=3)) == list(range(0, 500, 10))
    with pytest.raises(DataError, match="token id 490 at token 490"):
        check_tokens(summary, 490, scan_bytes=200)
