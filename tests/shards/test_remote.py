from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

import fsspec

from megagrow.bucketing.job import bucket
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from megagrow.errors import DataError
from megagrow.shards.rows import read
from megagrow.shards.shard import DamagedShardError, find, look_at
from tests.bucketing import inputs
from tests.shards.remote_server import serve

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.zstd", ".jsonl.gz", ".parquet")


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Path]:
    """One shard in each format, by its path on the server."""
    found = {}
    for suffix in SUFFIXES:
        inputs.write_shards(tmp_path / suffix, shards=1, documents=200, suffix=suffix)
        (file,) = (tmp_path / suffix).iterdir()
        found[f"shards/deep/{file.name}"] = file
    return found


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What `s3://shards` holds, at first nothing."""
    s3fs = pytest.importorskip("s3fs")
    files: dict[str, bytes] = {}
    with serve(files) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield files
        s3fs.S3FileSystem.clear_instance_cache()


def texts(location: str) -> list[str]:
    return [text for rows in read(look_at(location)) for text in rows.texts]


def test_http_gives_what_the_disk_gives(stored: dict[str, Path]) -> None:
    with serve({path: file.read_bytes() for path, file in stored.items()}) as address:
        for path, file in stored.items():
            (location,) = find([f"{address}/{path}"])
            assert look_at(location).fingerprint == look_at(str(file)).fingerprint
            assert texts(location) == texts(str(file))
        with pytest.raises(DataError, match=r"nowhere\.jsonl.*no such file"):
            find([f"{address}/nowhere.jsonl"])
    fsspec.filesystem("http").clear_instance_cache()


def test_s3_gives_what_the_disk_gives(stored: dict[str, Path], s3: dict[str, bytes]) -> None:
    s3.update({path: file.read_bytes() for path, file in stored.items()})
    s3["shards/deep/notes.txt"] = b"no shard"
    every = sorted(f"s3://{path}" for path in stored)
    assert find(["s3://shards/deep"]) == every
    assert find(["s3://shards/*/*.zst*"]) == [each for each in every if ".zst" in each]
    for location in every:
        file = stored[location.removeprefix("s3://")]
        assert look_at(location).fingerprint == look_at(str(file)).fingerprint
        assert texts(location) == texts(str(file))
    with pytest.raises(DataError, match=r"s3://shards/nowhere\.jsonl: no such file"):
        find(["s3://shards/nowhere.jsonl"])


def test_a_truncated_zst_on_s3_is_damaged(stored: dict[str, Path], s3: dict[str, bytes]) -> None:
    (path,) = (path for path in stored if path.endswith(".zst"))
    s3[path] = stored[path].read_bytes()[:-10]
    with pytest.raises(DamagedShardError, match=r"s3://.*truncated"):
        texts(f"s3://{path}")


def test_buckets_from_s3_are_those_from_the_disk(tmp_path: Path, s3: dict[str, bytes]) -> None:
    inputs.write_shards(tmp_path / "local", suffix=".jsonl.zst")
    s3.update({f"shards/{each.name}": each.read_bytes() for each in (tmp_path / "local").iterdir()})
    tokenizer = inputs.tokenizer(tmp_path).path
    for name, given in (("one", str(tmp_path / "local")), ("other", "s3://shards")):
        settings = Settings(inputs=(given,), output=tmp_path / name, tokenizer=tokenizer)
        bucket(settings, Progress(quiet=True))
    for file in sorted((tmp_path / "one").glob("*.bin")) + sorted((tmp_path / "one").glob("*.idx")):
        assert (tmp_path / "other" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("location", "package", "settings"),
    [
        ("s3://shards/x.jsonl", "s3fs", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
        ("hf://datasets/a/b/x.jsonl", "huggingface_hub", {"HF_ENDPOINT": "http://127.0.0.1:1"}),
    ],
)
def test_without_a_network_the_address_is_named(
    tmp_path: Path, location: str, package: str, settings: dict[str, str]
) -> None:
    pytest.importorskip(package)
    # A process of its own: the hub reads its settings when it is imported.
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import sys\n"
            "from megagrow.errors import DataError\n"
            "from megagrow.shards.shard import find\n"
            "try:\n    find([sys.argv[1]])\n"
            "except DataError as error:\n    print(error)\n",
            location,
        ],
        env={
            **os.environ, **settings, "HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        },
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"{location}: ")
    assert len(done.stdout.splitlines()) == 1
