"""Small files that are either old or new, also after a crash or a power cut. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file through a temporary one beside it; readers never see a part of it.

    Args:
        path: the file; its folder must exist. The temporary one is `.NAME.tmp`.
        content: bytes, or text to be written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished temporary file, already on disk, its final name, lastingly."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
