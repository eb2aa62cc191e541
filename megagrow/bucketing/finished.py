"""A finished output folder, opened to be read: what it holds, and whether its files fit that."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing import levels as frozen
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.writing import sidecar
from megagrow.data.indexed import DTYPES, MAGIC, VERSION
from megagrow.data.manifest import MANIFEST_NAME, bucket_files, read_manifest
from megagrow.data.writer import token_dtype
from megagrow.errors import DataError

INDEX_HEADER = struct.Struct("<9sQBQQ")
"""Magic, version, type code, sequences, document bounds."""

_MAKE = "tools/bucket_by_difficulty.py makes such folders"


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedFile:
    """One `.bin` of a bucket with its index and sidecar."""

    prefix: Path
    """Path of the files, without suffix."""

    level: int
    """Number of the bucket, from the easiest."""

    documents: int
    """Documents in it."""

    tokens: int
    """Token ids in it."""

    idx_sha256: str
    """sha256 of the index, as the manifest has it."""

    dtype: np.dtype[Any]
    """Type of a token id."""

    records_at: int
    """Byte of the sidecar at which its first record begins."""

    def path(self, suffix: str) -> Path:
        """The file with this suffix."""
        return self.prefix.with_name(self.prefix.name + suffix)

    def records(self, first: int, count: int) -> NDArray[Any]:
        """Sidecar records from document `first` on, of type `sidecar.SIDECAR`."""
        at = self.records_at + first * sidecar.SIDECAR.itemsize
        return _read(sidecar.sidecar_file(self.prefix), sidecar.SIDECAR, count, at)

    def lengths(self, first: int, count: int) -> NDArray[np.int32]:
        """Token ids of each document from `first` on, the end-of-document id included."""
        return _read(self.path(".idx"), np.dtype("<i4"), count, INDEX_HEADER.size + 4 * first)

    def offsets(self, first: int, count: int) -> NDArray[np.int64]:
        """Bytes of the `.bin` before each document from `first` on."""
        at = INDEX_HEADER.size + 4 * self.documents + 8 * first
        return _read(self.path(".idx"), np.dtype("<i8"), count, at)

    def token_ids(self, offset: int, count: int) -> NDArray[Any]:
        """Ids from byte `offset` on, mapped: they take memory only while they are looked at."""
        mapped = np.memmap(
            self.path(".bin"), dtype=self.dtype, mode="r", offset=offset, shape=(count,)
        )
        return mapped.view(np.ndarray)  # whose slices cost a tenth of a memmap's


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finished output folder."""

    folder: Path
    """The folder."""

    manifest: dict[str, Any]
    """Its manifest."""

    manifest_sha256: str
    """sha256 of the manifest file."""

    levels: Levels
    """Names, thresholds, and which scorer and tokenizer they belong to."""

    notes: dict[str, Any]
    """How the thresholds came about."""

    inputs: tuple[dict[str, Any], ...]
    """Lines of `inputs.jsonl`: every input file, and where its rows went."""

    files: tuple[FinishedFile, ...]
    """Files of all buckets, easiest bucket first, each in the order of the input."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a token id."""
        return token_dtype(int(self.manifest["vocab_size"]))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the buckets, easiest first."""
        return self.levels.names

    def of_level(self, level: int) -> list[FinishedFile]:
        """The files of a bucket."""
        return [file for file in self.files if file.level == level]


def open_finished(folder: Path) -> Finished:
    """Opens a folder and checks the sizes of its files; reads no document.

    Raises:
        DataError: it is not finished, not one of this tool, or a file is missing or damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(
            f"{folder}: no finished buckets here (no {MANIFEST_NAME} of this project): finish the "
            f"job, or name another folder; {_MAKE}"
        )
    try:
        found, notes = frozen.load(folder / manifest["levels"]["file"])
        inputs = _inputs(folder, manifest)
        if found.digest != manifest["levels"]["digest"]:
            raise DataError(
                f"{folder}: {manifest['levels']['file']} is not the one the buckets were cut with; "
                "restore it"
            )
        if list(manifest["buckets"]) != list(found.names):
            raise DataError(f"{folder}: its buckets are not its levels; restore {MANIFEST_NAME}")
        dtype = token_dtype(int(manifest["vocab_size"]))
        files = tuple(
            open_file(
                folder / each.prefix,
                level=found.names.index(name),
                documents=each.documents,
                tokens=each.tokens,
                idx_sha256=each.idx_sha256,
                dtype=dtype,
            )
            for name, every in bucket_files(manifest).items()
            for each in every
        )
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / MANIFEST_NAME}: lacks what is needed here ({error!r}): the folder was made "
            f"by another tool or an older version; {_MAKE}"
        ) from None
    return Finished(
        folder=folder,
        manifest=manifest,
        manifest_sha256=manifest_sha256(folder),
        levels=found,
        notes=notes,
        inputs=inputs,
        files=files,
    )


def manifest_sha256(folder: Path) -> str:
    """sha256 of the manifest file, as hexadecimal text.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{folder / MANIFEST_NAME}: cannot be read: {error}") from None


def open_file(
    prefix: Path, *, level: int, documents: int, tokens: int, idx_sha256: str, dtype: np.dtype[Any]
) -> FinishedFile:
    """A file of a bucket, after a look at the sizes and headers of its three parts.

    Raises:
        DataError: one is missing, or not what the manifest says.
    """
    sizes = {".bin": tokens * dtype.itemsize, ".idx": INDEX_HEADER.size + 20 * documents + 8}
    try:
        for suffix, expected in sizes.items():
            path = prefix.with_name(prefix.name + suffix)
            if path.stat().st_size != expected:
                raise DataError(
                    f"{path}: {path.stat().st_size} bytes, {MANIFEST_NAME} stands for {expected}: "
                    "truncated, or of another job; copy it again or make it again"
                )
        index = prefix.with_name(f"{prefix.name}.idx")
        with index.open("rb") as stream:
            header = stream.read(INDEX_HEADER.size)
    except OSError as error:
        raise DataError(f"{prefix}: cannot be read: {error}") from None
    code = next(code for code, name in DTYPES.items() if np.dtype(name) == dtype)
    if header != INDEX_HEADER.pack(MAGIC, VERSION, code, documents, documents + 1):
        raise DataError(
            f"{index}: its header is not that of {documents} documents of {dtype.name}: damaged, "
            "or of another job; copy it again or make it again"
        )
    records = sidecar.load(prefix)
    if records.size != documents:
        raise DataError(
            f"{sidecar.sidecar_file(prefix)}: {records.size} records for {documents} documents: "
            "of another job; copy it again or make it again"
        )
    at = sidecar.sidecar_file(prefix).stat().st_size - documents * sidecar.SIDECAR.itemsize
    return FinishedFile(
        prefix=prefix,
        level=level,
        documents=documents,
        tokens=tokens,
        idx_sha256=idx_sha256,
        dtype=dtype,
        records_at=at,
    )


def _inputs(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    path = folder / manifest["inputs"]["file"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != manifest["inputs"]["sha256"]:
        raise DataError(f"{path}: changed after it was written; restore it")
    return tuple(json.loads(line) for line in content.decode().splitlines())


def _read(path: Path, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.fromfile(path, dtype=dtype, count=count, offset=offset)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if found.size != count:
        raise DataError(f"{path}: ended early; another process changed it")
    return found
