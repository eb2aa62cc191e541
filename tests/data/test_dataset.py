from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megagrow.config.schema import DataConfig
from megagrow.data.buckets import Bucket, open_buckets
from megagrow.data.dataset import BucketDataset, open_datasets
from megagrow.errors import DataError
from megagrow.runtime import processes
from tests.data.indexed_files import bucket_of, counting, write
from tests.distributed import World

SEQ = 8


def dataset(bucket: Bucket, folder: Path, **changes: Any) -> BucketDataset:
    settings_: dict[str, Any] = {
        "seq_length": SEQ,
        "vocab_size": 60000,
        "seed": 7,
        "validation_fraction": 0.0,
        "cache": folder / "cache",
    }
    return BucketDataset(bucket, **(settings_ | changes))


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    lengths = np.random.default_rng(0).integers(1, 40, 100).tolist()
    write(tmp_path / "s", counting(lengths))
    return bucket_of(tmp_path, "s", seq_length=SEQ)


def epoch_of(data: BucketDataset, epoch: int) -> np.ndarray:
    return np.stack([data[epoch * len(data) + k] for k in range(len(data))])


def test_an_epoch_gives_every_token_once_but_the_last_partial_sequence(
    bucket: Bucket, tmp_path: Path
) -> None:
    data = dataset(bucket, tmp_path)
    assert len(data) == (bucket.tokens - 1) // SEQ
    for epoch in range(3):
        rows = epoch_of(data, epoch)
        assert rows.shape == (len(data), SEQ + 1)
        assert rows.dtype == np.int64
        inputs = rows[:, :-1].ravel()
        assert len(set(inputs)) == len(inputs) == len(data) * SEQ
        assert set(inputs) <= set(range(bucket.tokens))
        assert bucket.tokens - len(inputs) <= SEQ


def test_labels_follow_their_inputs_within_a_document(bucket: Bucket, tmp_path: Path) -> None:
    rows = epoch_of(dataset(bucket, tmp_path), 0)
    steps = np.diff(rows, axis=1)
    # Tokens count up inside a document, so any other step is a document's end.
    assert 0.5 < (steps == 1).mean() < 1.0


def test_epochs_are_in_different_orders_and_leave_out_different_tokens(
    bucket: Bucket, tmp_path: Path
) -> None:
    data = dataset(bucket, tmp_path)
    first, second = epoch_of(data, 0), epoch_of(data, 1)
    assert not np.array_equal(first, second)
    assert {*map(tuple, first.tolist())} != {*map(tuple, second.tolist())}


def test_reading_is_the_same_in_any_order_and_after_reopening(
    bucket: Bucket, tmp_path: Path
) -> None:
    data = dataset(bucket, tmp_path)
    wanted = [3 * len(data) + 1, 0, len(data) - 1, len(data), 2 * len(data), 1]
    one = [data[k].tolist() for k in wanted]
    again = dataset(bucket, tmp_path)
    elsewhere = dataset(bucket, tmp_path, cache=tmp_path / "another")
    order = sorted(wanted)
    assert [again[k].tolist() for k in order] == [one[wanted.index(k)] for k in order]
    assert [elsewhere[k].tolist() for k in wanted] == one


def test_the_seed_and_the_name_decide_the_order(bucket: Bucket, tmp_path: Path) -> None:
    other_name = bucket_of(tmp_path, "s", name="c", seq_length=SEQ)
    rows = [
        epoch_of(dataset(bucket, tmp_path), 0).tolist(),
        epoch_of(dataset(bucket, tmp_path, seed=8), 0).tolist(),
        epoch_of(dataset(other_name, tmp_path), 0).tolist(),
    ]
    assert rows[0] != rows[1]
    assert rows[0] != rows[2]


def test_samples_are_shuffled_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "x", counting([20] * 50))
    write(tmp_path / "y", counting([20] * 50, start=1000))
    data = dataset(bucket_of(tmp_path, "x", "y", seq_length=SEQ), tmp_path)
    rows = epoch_of(data, 0)
    from_y = (rows >= 1000).mean(axis=1)
    assert len(set(rows[:, :-1].ravel())) == len(data) * SEQ
    assert abs(from_y.mean() - 0.5) < 0.01
    # A run of one file would put the halves far from even: here each tenth has some of both.
    assert all(0.15 < part.mean() < 0.85 for part in np.array_split(from_y, 10))


def test_documents_stored_by_sentence_stay_whole(tmp_path: Path) -> None:
    documents = [[[10 * d, 10 * d + 1], [10 * d + 2], [10 * d + 3, 10 * d + 4]] for d in range(40)]
    write(tmp_path / "x", documents)
    write(tmp_path / "y", [[[]], [[400, 401]], [[402], [403, 404]]])
    data = dataset(bucket_of(tmp_path, "x", "y", seq_length=5), tmp_path, seq_length=5)
    assert len(data) == (205 - 1) // 5
    for row in epoch_of(data, 0).tolist():
        for before, after in pairwise(row):
            if before % 10 != 4 and before != 401:
                assert after == before + 1


def test_validation_and_training_share_no_document_and_miss_none(
    bucket: Bucket, tmp_path: Path
) -> None:
    train = dataset(bucket, tmp_path, validation_fraction=0.2)
    held_out = dataset(bucket, tmp_path, validation_fraction=0.2, split="validation")
    assert len(held_out._indices) == 20
    assert sorted([*train._indices, *held_out._indices]) == list(range(100))
    assert train.tokens + held_out.tokens == bucket.tokens
    seen = set(epoch_of(train, 0).ravel())
    assert not seen & set(epoch_of(held_out, 0).ravel())
    # Not the first or last ones, and others with another seed.
    assert set(held_out._indices) not in ({*range(20)}, {*range(80, 100)})
    other = dataset(bucket, tmp_path, validation_fraction=0.2, split="validation", seed=8)
    assert set(other._indices) != set(held_out._indices)


def test_other_data_under_the_same_name_gets_other_index_files(tmp_path: Path) -> None:
    """As many documents and tokens as before, so that only their lengths tell them apart."""
    for lengths in ([5, 30, 10, 20], [30, 5, 20, 10]):
        write(tmp_path / "s", counting(lengths))
        rows = epoch_of(dataset(bucket_of(tmp_path, "s", seq_length=SEQ), tmp_path), 0)
        ends = np.cumsum(lengths) - 1
        steps = np.diff(rows, axis=1)
        broken = rows[:, :-1][steps != 1]
        assert set(broken) <= set(ends)
        assert len({*rows[:, :-1].ravel()}) == rows[:, :-1].size


def test_too_little_to_validate_says_what_to_raise(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([3] * 100))
    bucket = bucket_of(tmp_path, "s", seq_length=SEQ)
    with pytest.raises(DataError, match=r"validation part of bucket 'b' has 3 tokens \(1 of 100"):
        dataset(bucket, tmp_path, validation_fraction=0.001, split="validation")


def test_a_bucket_of_one_document_trains_and_cannot_validate(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([50]))
    bucket = bucket_of(tmp_path, "s", seq_length=SEQ)
    assert len(dataset(bucket, tmp_path, validation_fraction=0.1)) == 6
    with pytest.raises(DataError, match="0 of 1 documents"):
        dataset(bucket, tmp_path, validation_fraction=0.1, split="validation")


def test_too_little_left_to_train(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5, 5]))
    bucket = bucket_of(tmp_path, "s", seq_length=SEQ)
    with pytest.raises(DataError, match=r"train part .* lower .* data.validation_fraction"):
        dataset(bucket, tmp_path, validation_fraction=0.5)


def test_a_stray_minus_one_is_not_taken_for_padding(tmp_path: Path) -> None:
    write(tmp_path / "s", [[[5, -1, 6, 7, 8]]], dtype=np.int32)
    data = DataConfig(path=str(tmp_path), buckets={"b": ("s",)})
    bucket = open_buckets(data, 4, 100, check_ids=False)["b"]
    assert dataset(bucket, tmp_path, seq_length=4)[0].tolist() == [5, -1, 6, 7, 8]


def test_negative_samples_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        dataset(bucket, tmp_path)[-1]


def test_prepared_epochs_are_read_and_not_built_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(bucket, tmp_path).prepare(range(2))
    files = sorted((tmp_path / "cache").iterdir())
    assert len([file for file in files if file.suffix == ".npy"]) == 6
    assert not [file for file in files if file.is_dir()]
    data = dataset(bucket, tmp_path)
    monkeypatch.setattr(data, "_build", lambda epoch: pytest.fail(f"built epoch {epoch} again"))
    assert isinstance(data._epoch(1).sample_index, np.memmap)
    epoch_of(data, 0)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "damage", [b"", b"\x93NUMPY", b"cos\nsystem\n(S'false'\ntR.", _npy(np.zeros((3, 2), np.int32))]
)
def test_damaged_index_files_are_built_again(bucket: Bucket, tmp_path: Path, damage: bytes) -> None:
    good = epoch_of(dataset(bucket, tmp_path), 0)
    for file in (tmp_path / "cache").glob("*_index.npy"):
        before = file.read_bytes()
        file.write_bytes(damage)
        assert np.array_equal(epoch_of(dataset(bucket, tmp_path), 0), good)
        assert file.read_bytes() == before


def test_cache_that_cannot_be_written(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to .*file.* set data\.cache"):
        dataset(bucket, tmp_path, cache=tmp_path / "file")[0]


def test_open_datasets_uses_the_config(bucket: Bucket, tmp_path: Path) -> None:
    data = DataConfig(path=str(tmp_path), buckets={"b": ("s",)}, validation_fraction=0.1)
    opened = open_datasets({"b": bucket}, data, seq_length=SEQ, vocab_size=60000, seed=7)["b"]
    assert len(opened._indices) == 90
    opened[0]
    assert list((tmp_path / "index_cache").glob("*_index.npy"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12), min_size=1, max_size=3),
    seq_length=st.integers(2, 9),
)
def test_any_division_into_files_and_documents(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], seq_length: int
) -> None:
    total = sum(map(sum, parts))
    if total <= seq_length or any(sum(part) == 0 for part in parts):
        return
    folder = tmp_path_factory.mktemp("parts")
    start = 0
    for number, lengths in enumerate(parts):
        write(folder / str(number), counting(lengths, start))
        start += sum(lengths)
    names = [str(number) for number in range(len(parts))]
    data = dataset(bucket_of(folder, *names, seq_length=seq_length), folder, seq_length=seq_length)
    inputs = epoch_of(data, 0)[:, :-1].ravel()
    assert len(data) == (total - 1) // seq_length
    assert len(set(inputs)) == len(inputs)
    assert set(inputs) <= set(range(total))


def _cannot_prepare(folder: str) -> str:
    path = Path(folder)
    data = dataset(bucket_of(path, "s", seq_length=SEQ), path, cache=path / "file")
    try:
        data.prepare(range(2))
    except DataError as error:
        return str(error)
    return ""


def test_a_cache_that_cannot_be_written_is_an_error_on_every_rank(
    bucket: Bucket, tmp_path: Path, world2: World
) -> None:
    (tmp_path / "file").write_text("")
    first, other = world2.run(_cannot_prepare, str(tmp_path), timeout=60.0)
    assert "its index cannot be written" in first
    assert other == first


def _read_on_ranks(folder: str, prepared: int) -> tuple[list[list[int]], bool]:
    path = Path(folder)
    data = dataset(bucket_of(path, "s", seq_length=SEQ), path)
    data.prepare(range(prepared))
    if prepared == 0 and processes.is_main():
        processes.barrier()  # the other rank reads first, with nothing in the cache
    rows = [data[k].tolist() for k in range(len(data))]
    if prepared == 0 and not processes.is_main():
        processes.barrier()
    return rows, isinstance(data._epoch(0).sample_index, np.memmap)


@pytest.mark.parametrize("prepared", [1, 0])
def test_ranks_read_the_same(bucket: Bucket, tmp_path: Path, world2: World, prepared: int) -> None:
    results = world2.run(_read_on_ranks, str(tmp_path), prepared)
    assert results[0][0] == results[1][0]
    assert [mapped for _, mapped in results] == [True, prepared == 1]
