from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from megagrow.errors import DataError
from megagrow.shards.shard import check_distinct, check_unchanged, find, look_at
from tests.bucketing import inputs


def names(found: list[str]) -> list[str]:
    return [Path(each).name for each in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl.zstd", "deep/c.parquet", "d.json.gz", "tokenizer.json",
                 "notes.txt", ".hidden.jsonl"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_a_folder_stands_for_its_shards(folder: Path) -> None:
    assert names(find([folder])) == ["a.jsonl.zstd", "b.jsonl", "d.json.gz", "c.parquet"]


def test_globs_lists_and_files_are_found_once(folder: Path) -> None:
    (folder / "list").write_text(f"{folder}/b.jsonl\n\n  {folder}/deep\n")
    found = find([f"{folder}/*.jsonl*", f"{folder}/notes.txt", f"@{folder}/list"])
    assert names(found) == ["a.jsonl.zstd", "b.jsonl", "c.parquet", "notes.txt"]


def test_addresses_are_opened_through_fsspec(folder: Path) -> None:
    (plain,) = find([folder / "b.jsonl"])
    (address,) = find([f"file://{folder}/b.jsonl"])
    assert address == f"file://{folder}/b.jsonl"
    assert look_at(address).fingerprint == look_at(plain).fingerprint
    assert names(find([f"file://{folder}/*.jsonl*"])) == ["a.jsonl.zstd", "b.jsonl"]
    assert names(find([f"file://{folder}/deep"])) == ["c.parquet"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}/b.json", r"no such file or folder; did you mean .*b\.jsonl\?"),
        ("{}/nowhere/b.jsonl", "there is no folder"),
        ("{}/*.bz2", "matches no file"),
        ("{}/empty", "no file in this folder ends with"),
        ("@{}/missing", "list of input files cannot be read"),
        ("file://{}/missing.jsonl", "no such file"),
        ("nosuch://bucket/x", "nosuch"),
    ],
)
def test_what_stands_for_nothing_is_refused(folder: Path, given: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        find([given.format(folder)])


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(b"{}")
    contents = {
        "zstd": packed,
        "gzip": gzip.compress(b"{}"),
        "parquet": b"PAR1....",
        "jsonl": b"{}\n",
        "skippable": b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + packed,
        "empty": b"",
    }
    found = {}
    for name, content in contents.items():
        path = tmp_path / f"{name}.jsonl"  # the name says nothing
        path.write_bytes(content)
        found[name] = look_at(str(path)).format
    assert found == {
        "zstd": "zstd", "gzip": "gzip", "parquet": "parquet", "jsonl": "jsonl",
        "skippable": "zstd", "empty": "jsonl",
    }  # fmt: skip


@pytest.mark.parametrize(("magic", "name"), [(b"BZh91", "bzip2"), (b"\xfd7zXZ", "xz")])
def test_foreign_formats_are_refused(tmp_path: Path, magic: bytes, name: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(magic)
    with pytest.raises(DataError, match=f"{name} is not read here"):
        look_at(str(tmp_path / "x.jsonl"))


def test_changed_and_vanished_files_are_noticed(tmp_path: Path) -> None:
    path = inputs.write(tmp_path / "x.jsonl", b"a" * (3 << 20))
    shard = look_at(str(path))
    check_unchanged(shard)
    for change in (b"b" + b"a" * ((3 << 20) - 1), b"a" * ((3 << 20) + 1)):
        path.write_bytes(change)
        with pytest.raises(DataError, match="changed since the job began"):
            check_unchanged(shard)
    path.unlink()
    with pytest.raises(DataError, match="cannot be opened: No such file"):
        check_unchanged(shard)


def test_the_same_content_twice_is_refused(tmp_path: Path) -> None:
    paths = [inputs.write(tmp_path / name, b"{}\n") for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(DataError, match=r"a\.jsonl and .*b\.jsonl look the same"):
        check_distinct([look_at(str(path)) for path in paths])
    empty = [inputs.write(tmp_path / name, b"") for name in ("c.jsonl", "d.jsonl")]
    check_distinct([look_at(str(path)) for path in empty])
