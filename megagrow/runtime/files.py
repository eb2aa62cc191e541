"""Files that are old or new, also after a crash or a power cut, and copies of parts of files.

Imports no torch.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_UNABLE = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BLOCK = 1 << 17


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


def copy_bytes(source: int, target: int, count: int) -> None:
    """Copies from where one file stands to where another does.

    Inside the kernel where it can, which may share the blocks instead (Linux `copy_file_range`).

    Args:
        source: descriptor of the file to read.
        target: of the file to write; what Python holds back of it is flushed.
        count: bytes.

    Raises:
        OSError: a file cannot be read or written.
        EOFError: the source ended before.
    """
    copy = getattr(os, "copy_file_range", _copy_block)
    while count:
        try:
            copied = copy(source, target, count)
        except OSError as error:
            if copy is _copy_block or error.errno not in _UNABLE:
                raise
            copied = 0
        if copied == 0 and copy is _copy_block:
            raise EOFError(f"the file ended {count} bytes early")
        if copied == 0:  # such as two file systems; both files stand where the copying stopped
            copy = _copy_block
        count -= copied


def _copy_block(source: int, target: int, count: int) -> int:
    block = memoryview(os.read(source, min(count, _BLOCK)))
    copied = len(block)
    while block:
        block = block[os.write(target, block) :]
    return copied
