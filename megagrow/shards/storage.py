"""Files on this machine, and those of `s3://`, `hf://` and the like through fsspec."""

from __future__ import annotations

import hashlib
import os
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import IO, Any

from megagrow.errors import DataError

SUFFIXES = tuple(
    f"{rows}{packed}" for rows in (".jsonl", ".ndjson") for packed in ("", ".zst", ".zstd", ".gz")
) + (".json.zst", ".json.zstd", ".json.gz", ".parquet")
"""Ends of the names that are taken from a folder; a file that is named itself may end anyhow.

Not .json: that is a tokenizer or a note beside the shards.
"""

_HASHED_BYTES = 1 << 20


def is_remote(location: str) -> bool:
    """Whether it is a URL, which fsspec opens, and no path."""
    return "://" in location


def expand(location: str) -> list[str]:
    """The files that a file, a folder or a glob stands for; unordered, paths absolute.

    Raises:
        DataError: it stands for none, or cannot be looked at.
    """
    return _expand_remote(location) if is_remote(location) else _expand_local(location)


def open_binary(location: str) -> IO[bytes]:
    """Opens a file for reading.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        if not is_remote(location):
            return Path(location).open("rb")
        system, path = _file_system(location)
        # Shards are read once, from the start: keeping what was read would only fill the memory.
        stream: IO[bytes] = system.open(path, "rb", cache_type="readahead")
        return stream
    except OSError as error:
        raise DataError(f"{location}: cannot be opened: {_reason(error)}") from None


def sha256(path: Path) -> str:
    """sha256 of a local file, read some MiB at a time, as hexadecimal text.

    Raises:
        DataError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_HASHED_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from None
    return digest.hexdigest()


def _expand_local(location: str) -> list[str]:
    path = Path(location).expanduser()
    if path.is_file():
        return [_absolute(path)]
    if path.is_dir():
        found = [each for each in path.rglob("*") if _is_shard(each, path)]
        if not found:
            raise DataError(f"{path}: no file in this folder ends with {', '.join(SUFFIXES)}")
        return [_absolute(each) for each in found]
    if has_magic(location):
        found = [Path(each) for each in glob(str(path), recursive=True)]  # noqa: PTH207  # absolute
        matches = [_absolute(each) for each in found if each.is_file()]
        if not matches:
            raise DataError(f"{location}: matches no file{_nearest(path.parent, path.name)}")
        return matches
    raise DataError(f"{path}: no such file or folder{_nearest(path.parent, path.name)}")


def _expand_remote(location: str) -> list[str]:
    system, path = _file_system(location)
    try:
        if has_magic(path):
            found = [each for each in system.glob(path) if system.isfile(each)]
            # As the shell has it; fsspec's globs match hidden files, too.
            found = [each for each in found if not each.rpartition("/")[2].startswith(".")]
        elif system.isdir(path):
            found = [each for each in system.find(path) if _is_input(each.rpartition("/")[2])]
        else:
            found = [path] if system.isfile(path) else []
    except Exception as error:  # every file system raises its own
        raise DataError(f"{location}: cannot be listed: {_reason(error)}") from None
    if not found:
        raise DataError(f"{location}: no such file, and no files below it; check the address")
    return [str(system.unstrip_protocol(each)) for each in found]


def _file_system(location: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise DataError(
            f"{location}: remote files need fsspec: pip install 'megagrow[data]'"
        ) from None
    try:
        system, path = url_to_fs(location)
    except (ImportError, ValueError) as error:  # no such protocol, or its package is missing
        raise DataError(f"{location}: {error}") from None
    return system, str(path)


def _absolute(path: Path) -> str:
    # Not resolve(): the names of links tell the order of the shards, those they lead to may not.
    return os.path.abspath(path)  # noqa: PTH100


def _is_shard(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and _is_input(path.name) and path.is_file()


def _is_input(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _nearest(folder: Path, name: str) -> str:
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    close = get_close_matches(name, [each.name for each in folder.iterdir()], n=1)
    return f"; did you mean {folder / close[0]}?" if close else ""


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
