from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.config.schema import DataConfig
from megagrow.data.buckets import check_visible, open_buckets
from megagrow.data.manifest import MANIFEST_FORMAT, MANIFEST_VERSION
from megagrow.errors import DataError
from tests.data.indexed_files import bucket_of, counting, write


def test_reads_all_prefixes_in_order(tmp_path: Path) -> None:
    write(tmp_path / "easy.01", counting([5, 6]))
    write(tmp_path / "easy.02", counting([7]))
    write(tmp_path / "hard", counting([9]))
    data = DataConfig(
        path=str(tmp_path), buckets={"hard": ("hard",), "easy": ("easy.02.bin", "easy.01.idx")}
    )
    buckets = open_buckets(data, 4, 100)
    assert list(buckets) == ["hard", "easy"]
    assert buckets["easy"].prefixes == (f"{tmp_path}/easy.02", f"{tmp_path}/easy.01")
    assert (buckets["easy"].documents, buckets["easy"].tokens) == (3, 18)


def test_absolute_prefixes_stand_by_themselves(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5]))
    data = DataConfig(path="/nowhere", buckets={"b": (str(tmp_path / "s"),)})
    assert open_buckets(data, 4, 100)["b"].tokens == 5


def test_fingerprint_changes_with_order_and_content(tmp_path: Path) -> None:
    write(tmp_path / "x", counting([5, 6]))
    write(tmp_path / "y", counting([6, 5]))
    prints = {
        bucket_of(tmp_path, *names).fingerprint
        for names in (("x",), ("y",), ("x", "y"), ("y", "x"))
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("esay", "did you mean 'easy'"),
        ("zzzzzz", "has easy, hard"),
        ("sub/easy", "there is no folder .*sub; set data.path"),
    ],
)
def test_missing_prefix_names_the_nearest(tmp_path: Path, asked: str, message: str) -> None:
    write(tmp_path / "easy", counting([5]))
    write(tmp_path / "hard", counting([5]))
    with pytest.raises(DataError, match=rf"bucket 'b': neither .*{asked}.bin nor .*{message}"):
        bucket_of(tmp_path, asked)


def test_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no \.idx file; prepare the data first"):
        bucket_of(tmp_path, "easy")


def test_bucket_without_prefix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bucket 'b' lists no prefix"):
        bucket_of(tmp_path)


def test_same_prefix_twice(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5]))
    with pytest.raises(DataError, match=r"lists .*s twice"):
        bucket_of(tmp_path, "s", "s.idx")


def test_empty_bucket(tmp_path: Path) -> None:
    write(tmp_path / "s", [])
    with pytest.raises(DataError, match=r"bucket 'b' is empty \(.*s\): add data"):
        bucket_of(tmp_path, "s")


def test_bucket_shorter_than_a_sequence_and_its_label(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5]))
    assert bucket_of(tmp_path, "s", seq_length=4).tokens == 5
    with pytest.raises(DataError, match=r"has 5 tokens .*too few for one sequence of 5"):
        bucket_of(tmp_path, "s", seq_length=5)


def test_damage_names_the_bucket(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5, 5]))
    (tmp_path / "s.bin").write_bytes(b"\0" * 7)
    with pytest.raises(DataError, match=r"bucket 'b': .*s\.bin: 7 bytes"):
        bucket_of(tmp_path, "s")


def test_ids_beyond_the_vocabulary_name_the_bucket(tmp_path: Path) -> None:
    write(tmp_path / "s", [[[1, 2, 99, 3, 4]]], dtype=np.int32)
    with pytest.raises(DataError, match=r"bucket 'b': .*token id 99 at token 2 .document 0"):
        bucket_of(tmp_path, "s", vocab=99)
    data = DataConfig(path=str(tmp_path), buckets={"b": ("s",)})
    assert open_buckets(data, 4, 99, check_ids=False)["b"].tokens == 5


def test_files_that_another_process_does_not_see(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / name, counting([5, 5]))
    buckets = {"b": bucket_of(tmp_path, "x", "y")}
    check_visible(buckets)
    (tmp_path / "y.bin").write_bytes(b"\0" * 7)
    with pytest.raises(
        DataError, match=r"bucket 'b': .*y has 7 bytes on .* of 20 bytes: data.path"
    ):
        check_visible(buckets)
    (tmp_path / "x.idx").unlink()
    with pytest.raises(DataError, match=r"bucket 'b': .*x cannot be read \(No such file"):
        check_visible(buckets)


def manifest(folder: Path, **changes: Any) -> None:
    stats = {"prefix": "s", "documents": 2, "tokens": 11, "bytes": 22, "idx_sha256": ""}
    file = stats | changes.pop("entry", {})
    content = {
        "format": MANIFEST_FORMAT,
        "version": MANIFEST_VERSION,
        "vocab_size": 60000,
        "buckets": {"any": {"files": [file]}},
    } | changes
    (folder / "manifest.json").write_text(json.dumps(content))


def test_manifest_that_agrees(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5, 6]))
    manifest(tmp_path)
    assert bucket_of(tmp_path, "s").tokens == 11


def test_a_bucket_of_several_files_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5, 6]))
    write(tmp_path / "t", counting([3]))
    stats = {"documents": 2, "tokens": 11, "bytes": 22, "idx_sha256": ""}
    files = [{"prefix": "s", **stats}, {"prefix": "t", **stats, "documents": 1, "tokens": 3}]
    manifest(tmp_path, buckets={"both": {"files": files}})
    assert bucket_of(tmp_path, "both").prefixes == (str(tmp_path / "s"), str(tmp_path / "t"))
    assert bucket_of(tmp_path, "both").tokens == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 50000}, "vocabulary of 50000, model.vocab_size is 60000: set it to 50000"),
        ({"entry": {"tokens": 12}}, "has 11 tokens, .*manifest.json says 12"),
        ({"entry": {"documents": 1}}, "has 2 documents, .*manifest.json says 1"),
    ],
)
def test_manifest_that_disagrees(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path / "s", counting([5, 6]))
    manifest(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        bucket_of(tmp_path, "s")


@pytest.mark.parametrize("buckets", [[1], {"easy": 1}, None])
def test_manifest_that_is_damaged(tmp_path: Path, buckets: Any) -> None:
    write(tmp_path / "s", counting([5, 6]))
    manifest(tmp_path, buckets=buckets)
    with pytest.raises(DataError, match=r"manifest\.json: damaged: `buckets` is no table"):
        bucket_of(tmp_path, "s")


def test_manifest_that_is_no_json(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5, 6]))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        bucket_of(tmp_path, "s")


def test_manifest_of_another_tool_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "s", counting([5, 6]))
    manifest(tmp_path, format="other", vocab_size=1)
    assert bucket_of(tmp_path, "s").tokens == 11
