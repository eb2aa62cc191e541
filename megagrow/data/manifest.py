"""`manifest.json`: what a data folder holds. Written last, it makes the folder complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "megagrow-buckets"
MANIFEST_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStats:
    """One finished `.bin` and `.idx` of a bucket."""

    prefix: str
    """Path in the data folder, without suffix."""
    documents: int
    """Number of documents."""
    tokens: int
    """Number of token ids, one end-of-document id per document included."""
    bytes: int
    """Size of the .bin file."""
    idx_sha256: str
    """sha256 of the .idx file, as hexadecimal text."""


def write_manifest(
    folder: Path,
    *,
    vocab_size: int,
    eod: int,
    buckets: Mapping[str, Sequence[FileStats]],
    notes: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes `manifest.json`; write it last.

    Args:
        folder: data folder.
        vocab_size: one more than the largest id.
        eod: id that ends every document.
        buckets: name to files, easiest first.
        notes: more entries: how the data came about.

    Returns:
        The manifest as written.
    """
    manifest = {
        "format": MANIFEST_FORMAT,
        "version": MANIFEST_VERSION,
        "vocab_size": vocab_size,
        "eod": eod,
        "buckets": {
            name: {
                "documents": sum(file.documents for file in files),
                "tokens": sum(file.tokens for file in files),
                "files": [asdict(file) for file in files],
            }
            for name, files in buckets.items()
        },
        **notes,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST_NAME, text)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a data folder; None where it has none, or one of another tool.

    Raises:
        DataError: it is damaged, or of a version that is not known here.
    """
    file = folder / MANIFEST_NAME
    if not file.exists():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}; remove it or prepare again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        return None
    if manifest.get("version") != MANIFEST_VERSION:
        raise DataError(
            f"{file}: version {manifest.get('version')}, only {MANIFEST_VERSION} is known here: "
            "prepare the data again, or use the megagrow it was made with"
        )
    try:
        bucket_files(manifest)
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: damaged: `buckets` is no table of files ({error}); remove it or prepare again"
        ) from None
    return manifest


def bucket_files(manifest: Mapping[str, Any]) -> dict[str, list[FileStats]]:
    """The files of each bucket of a manifest, easiest bucket first."""
    return {
        str(name): [FileStats(**file) for file in bucket["files"]]
        for name, bucket in manifest["buckets"].items()
    }
