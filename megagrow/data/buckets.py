"""The difficulty buckets of a run: where they are, what they hold, whether they fit the config."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from megagrow.config.schema import DataConfig
from megagrow.data.indexed import SCAN_BYTES, IndexSummary, check_tokens, inspect
from megagrow.data.manifest import MANIFEST_NAME, FileStats, bucket_files, read_manifest
from megagrow.errors import DataError

#: megatron-core numbers the documents of a data set with int32.
MAX_DOCUMENTS = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """One difficulty bucket: the documents of its parts, in the order they are listed."""

    name: str
    """Name in the config."""

    parts: tuple[IndexSummary, ...]
    """Its .bin/.idx pairs."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Paths of its parts."""
        return tuple(part.prefix for part in self.parts)

    @property
    def documents(self) -> int:
        """Documents in it."""
        return sum(part.documents for part in self.parts)

    @property
    def tokens(self) -> int:
        """Tokens in it."""
        return sum(part.tokens for part in self.parts)

    @property
    def fingerprint(self) -> str:
        """The same for the same data at another place; changes with any document's length."""
        return "-".join(f"{part.digest:08x}{part.dtype}" for part in self.parts)


def open_buckets(
    data: DataConfig, seq_length: int, vocab_size: int, *, check_ids: bool = True
) -> dict[str, Bucket]:
    """Finds and checks all buckets of a config, in its order; reads every index whole.

    For one rank: the others are told, and `check_visible` is enough for them.

    Args:
        data: Folder and prefixes; a prefix may be written with or without ``.bin`` or ``.idx``, or
            be the name of a bucket in manifest.json, which stands for all its files.
        seq_length: Tokens in a training sequence.
        vocab_size: Number of token ids.
        check_ids: Look for ids beyond the vocabulary (reads up to 1 GiB of each bucket).

    Raises:
        DataError: a bucket is missing, damaged, too small, written with another vocabulary, or not
            what manifest.json says.
    """
    folder = Path(data.path)
    manifest = _read_manifest(folder, vocab_size)
    buckets = {}
    for name, prefixes in data.buckets.items():
        bucket = _open_bucket(name, _resolve(name, folder, _spelled_out(prefixes, manifest)))
        _check_size(bucket, seq_length)
        _check_manifest(bucket, folder, manifest)
        if check_ids:
            budget = SCAN_BYTES // len(bucket.parts)
            for part in bucket.parts:
                try:
                    check_tokens(part, vocab_size, scan_bytes=budget)
                except DataError as error:
                    raise DataError(f"bucket {name!r}: {error}") from error
        buckets[name] = bucket
    return buckets


def check_visible(buckets: Mapping[str, Bucket]) -> None:
    """Checks that this process sees the files that another one has opened and checked.

    Raises:
        DataError: a token file is missing here or has another size.
    """
    for name, bucket in buckets.items():
        for part in bucket.parts:
            expected = part.tokens * np.dtype(part.dtype).itemsize
            try:
                Path(f"{part.prefix}.idx").stat()
                found = Path(f"{part.prefix}.bin").stat().st_size
                wrong = "" if found == expected else f"has {found} bytes"
            except OSError as error:
                wrong = f"cannot be read ({error.strerror})"
            if wrong:
                raise DataError(
                    f"bucket {name!r}: {part.prefix} {wrong} on {socket.gethostname()}; rank 0 "
                    f"sees .idx and .bin, of {expected} bytes: data.path must be a folder that "
                    "every process sees"
                )


def _spelled_out(prefixes: Sequence[str], manifest: Mapping[str, Sequence[FileStats]]) -> list[str]:
    """Prefixes, where the name of a bucket of the manifest stands for all its files."""
    return [
        prefix
        for text in prefixes
        for prefix in ([file.prefix for file in manifest[text]] if text in manifest else [text])
    ]


def _resolve(name: str, folder: Path, prefixes: Sequence[str]) -> list[Path]:
    if not prefixes:
        raise DataError(f"bucket {name!r} lists no prefix: add one, or remove it from data.buckets")
    found: list[Path] = []
    for text in prefixes:
        # Not Path.with_suffix: prefixes such as `shard.0001` have a dot that is no suffix.
        prefix = folder / text.removesuffix(".bin").removesuffix(".idx")
        if not Path(f"{prefix}.idx").exists() and not Path(f"{prefix}.bin").exists():
            raise DataError(
                f"bucket {name!r}: neither {prefix}.bin nor {prefix}.idx exists{_nearest(prefix)}"
            )
        if prefix in found:
            raise DataError(
                f"bucket {name!r} lists {prefix} twice, which would repeat its documents: "
                "remove one of the two"
            )
        found.append(prefix)
    return found


def _nearest(prefix: Path) -> str:
    folder = prefix.parent
    if not folder.is_dir():
        return f": there is no folder {folder}; set data.path to where the data is"
    there = sorted(path.name.removesuffix(".idx") for path in folder.glob("*.idx"))
    close = get_close_matches(prefix.name, there, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    if there:
        return f"; {folder} has {', '.join(there[:8])}{' ...' if len(there) > 8 else ''}"
    return f": {folder} has no .idx file; prepare the data first, or correct data.path"


def _open_bucket(name: str, prefixes: Sequence[Path]) -> Bucket:
    try:
        parts = tuple(inspect(prefix) for prefix in prefixes)
    except DataError as error:
        raise DataError(f"bucket {name!r}: {error}") from error
    return Bucket(name=name, parts=parts)


def _check_size(bucket: Bucket, seq_length: int) -> None:
    where = ", ".join(bucket.prefixes)
    if bucket.tokens == 0:
        raise DataError(
            f"bucket {bucket.name!r} is empty ({where}): add data to it, or remove it from "
            "data.buckets and from the mixtures"
        )
    if bucket.tokens <= seq_length:
        raise DataError(
            f"bucket {bucket.name!r} has {bucket.tokens} tokens ({where}), too few for one "
            f"sequence of {seq_length} and its last label: add data, or lower model.seq_length"
        )
    if bucket.documents > MAX_DOCUMENTS:
        raise DataError(
            f"bucket {bucket.name!r} has {bucket.documents} documents, megatron-core counts up to "
            f"{MAX_DOCUMENTS}: divide it into several buckets"
        )


def _read_manifest(folder: Path, vocab_size: int) -> dict[str, list[FileStats]]:
    """Files of each bucket that the folder's manifest lists; none without one."""
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    written = manifest.get("vocab_size")
    if written != vocab_size:
        raise DataError(
            f"{folder / MANIFEST_NAME}: the data was written with a vocabulary of {written}, "
            f"model.vocab_size is {vocab_size}: set it to {written}, or prepare the data with "
            "another tokenizer"
        )
    return bucket_files(manifest)


def _check_manifest(
    bucket: Bucket, folder: Path, manifest: Mapping[str, Sequence[FileStats]]
) -> None:
    """Every part that the manifest lists has as many documents and tokens as it says."""
    listed = {file.prefix: file for files in manifest.values() for file in files}
    for part in bucket.parts:
        entry = listed.get(os.path.relpath(part.prefix, folder))
        if entry is None:
            continue
        for key, found, said in (
            ("documents", part.documents, entry.documents),
            ("tokens", part.tokens, entry.tokens),
        ):
            if said != found:
                raise DataError(
                    f"bucket {bucket.name!r}: {part.prefix} has {found} {key}, "
                    f"{folder / MANIFEST_NAME} says {said}: these are not the files it was written "
                    "for; copy the folder again or prepare it again"
                )
