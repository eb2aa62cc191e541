"""Checksums of a checkpoint's files: torch's format has none, and loads flipped bits in silence.

Every rank computes those of the files it wrote, in the background like the writing itself; on
loading, every rank checks its share of the files.
"""

from __future__ import annotations

import contextlib
import socket
import zlib
from collections.abc import Mapping
from pathlib import Path

from megagrow.errors import CheckpointError

SUFFIX = ".crc32"
_CHUNK = 1 << 22


def checksum(path: Path) -> int:
    """CRC-32 of a file's bytes, in constant memory."""
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def note(folder: Path, pattern: str) -> None:
    """Puts the checksum of every matching file into a file beside it, for `collect`.

    What cannot be noted is left to `collect`.
    """
    for path in sorted(folder.glob(pattern)):
        with contextlib.suppress(OSError):
            _noted(path).write_text(f"{checksum(path)}\n", encoding="ascii")


def collect(folder: Path) -> dict[str, dict[str, int]]:
    """Size and checksum of every file in a folder; takes the noted ones and removes their files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    described = {}
    for path in files:
        if path.suffix != SUFFIX:
            name = str(path.relative_to(folder))
            described[name] = {"bytes": path.stat().st_size, "crc32": _take(path)}
    return described


def check_sizes(folder: Path, files: Mapping[str, Mapping[str, int]], mend: str) -> None:
    """Checks that every file is there at its full size.

    Raises:
        CheckpointError: one is not; the message ends with `mend`.
    """
    for name, written in files.items():
        path = folder / name
        actual = path.stat().st_size if path.is_file() else None
        if actual != written["bytes"]:
            found = "missing" if actual is None else f"{actual} bytes long"
            raise CheckpointError(
                f"{path} is {found}; it was written with {written['bytes']} bytes. {mend}"
            )


def check_contents(
    folder: Path, files: Mapping[str, Mapping[str, int]], mend: str, *, rank: int, ranks: int
) -> None:
    """Checks the contents of the share of one rank of `ranks`; reads those files whole.

    Raises:
        CheckpointError: a file is not what was written, or cannot be read here.
    """
    for name in sorted(files)[rank::ranks]:
        try:
            found = checksum(folder / name)
        except OSError as error:
            raise CheckpointError(
                f"{folder / name} cannot be read on {socket.gethostname()}: {error}. Every process "
                f"must see the checkpoint. {mend}"
            ) from error
        if found != files[name]["crc32"]:
            raise CheckpointError(
                f"{folder / name} is damaged: its checksum is not the one it was written with. "
                f"{mend}"
            )


def _noted(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _take(path: Path) -> int:
    try:
        text = _noted(path).read_text(encoding="ascii")
        _noted(path).unlink()
    except FileNotFoundError:
        return checksum(path)
    # Without its newline it was cut short by a full disk.
    return int(text) if text.endswith("\n") else checksum(path)
