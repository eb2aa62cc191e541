from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

from megagrow.data import writer as writer_module
from megagrow.data.writer import BucketWriter, index_bytes, token_dtype
from megagrow.errors import DataError

DOCUMENTS = [[5, 6, 7], [9], [8, 8, 8, 8, 5], [499]]
EOD = 0


def write(prefix: Path, documents: list[list[int]], vocab_size: int = 500) -> BucketWriter:
    with BucketWriter(prefix, vocab_size=vocab_size, eod=EOD) as writer:
        for document in documents:
            writer.add(document)
    return writer


def megatron_files(
    prefix: Path, documents: list[list[int]], vocab_size: int
) -> tuple[bytes, bytes]:
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(vocab_size))
    for document in documents:
        builder.add_document(torch.tensor([*document, EOD]), [len(document) + 1])
    builder.finalize(f"{prefix}.idx")
    return files(prefix)


def files(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


@pytest.mark.parametrize("vocab_size", [500, 65_499, 65_500, 128_000])
def test_same_bytes_as_megatron(tmp_path: Path, vocab_size: int) -> None:
    documents = [*DOCUMENTS, [vocab_size - 1]]
    write(tmp_path / "ours", documents, vocab_size)
    assert files(tmp_path / "ours") == megatron_files(tmp_path / "theirs", documents, vocab_size)
    assert token_dtype(vocab_size) == np.dtype(DType.optimal_dtype(vocab_size))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 499), min_size=1, max_size=30), min_size=1, max_size=20))
def test_megatron_reads_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]]
) -> None:
    prefix = tmp_path_factory.mktemp("bucket") / "name.with.dots"
    writer = write(prefix, documents)
    dataset = IndexedDataset(str(prefix))
    assert [dataset[i].tolist() for i in range(len(dataset))] == [[*d, EOD] for d in documents]
    assert writer.stats.documents == len(documents)
    assert writer.stats.tokens == writer.tokens == sum(len(d) + 1 for d in documents)
    bin_content, idx_content = files(prefix)
    assert writer.stats.bytes == len(bin_content)
    assert writer.stats.idx_sha256 == hashlib.sha256(idx_content).hexdigest()


def test_many_documents_at_once_equal_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_BUFFER_BYTES", 4)  # several flushes
    write(tmp_path / "one", DOCUMENTS)
    flat = np.concatenate([np.array(d) for d in DOCUMENTS])
    lengths = np.array([len(d) for d in DOCUMENTS])
    with BucketWriter(tmp_path / "many", vocab_size=500, eod=EOD) as writer:
        writer.add_documents(flat[:4], lengths[:2])
        writer.add_documents(flat[4:], lengths[2:])
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_long_offsets_do_not_wrap() -> None:
    content = index_bytes(np.full(3, 2**31 - 1, dtype=np.int32), np.dtype("<i4"))
    offsets = np.frombuffer(content, dtype="<i8", count=3, offset=34 + 3 * 4)
    assert offsets.tolist() == [0, 4 * (2**31 - 1), 8 * (2**31 - 1)]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "empty document"),
        ([1, 500], "do not fit a vocabulary of 500"),
        ([-1], "do not fit"),
        ([1, EOD, 2], "inside a document"),
    ],
)
def test_bad_documents_are_refused(tmp_path: Path, document: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "bad", [[1], document])
    assert list(tmp_path.iterdir()) == []


def test_lengths_must_add_up(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="add up to 3, but 2 ids"),
        BucketWriter(tmp_path / "bad", vocab_size=500, eod=EOD) as writer,
    ):
        writer.add_documents(np.array([1, 2]), np.array([1, 2]))


def test_empty_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        write(tmp_path / "empty", [])
    assert list(tmp_path.iterdir()) == []


def test_eod_must_be_in_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="end-of-document id 500"):
        BucketWriter(tmp_path / "bad", vocab_size=500, eod=500)


def test_nothing_appears_before_the_end(tmp_path: Path) -> None:
    with BucketWriter(tmp_path / "b", vocab_size=500, eod=EOD) as writer:
        writer.add([1])
        assert {p.name for p in tmp_path.iterdir()} == {"b.bin.tmp"}
        with pytest.raises(DataError, match="not finished"):
            _ = writer.stats
    assert {p.name for p in tmp_path.iterdir()} == {"b.bin", "b.idx"}


def test_failure_leaves_the_earlier_files(tmp_path: Path) -> None:
    write(tmp_path / "b", DOCUMENTS)
    before = files(tmp_path / "b")
    with pytest.raises(DataError, match="empty document"):
        write(tmp_path / "b", [[1], []])
    assert files(tmp_path / "b") == before
    assert len(list(tmp_path.iterdir())) == 2


def test_old_index_never_stands_beside_new_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "b", DOCUMENTS)

    def crash(path: Path, content: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(writer_module, "write_atomically", crash)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "b", [[1, 2]])
    assert {p.name for p in tmp_path.iterdir()} == {"b.bin"}
