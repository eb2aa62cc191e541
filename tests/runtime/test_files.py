"""Small files are old or new, never half; parts of files are copied whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from megagrow.runtime.files import copy_bytes, write_atomically


def test_text_and_bytes_replace_what_was_there_and_leave_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    write_atomically(file, "größer\n")
    assert file.read_bytes() == "größer\n".encode()
    write_atomically(file, b"\xff\x00")
    assert file.read_bytes() == b"\xff\x00"
    assert list(tmp_path.iterdir()) == [file]


def test_the_content_is_on_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "latest"
    file.write_text("old")
    seen: list[tuple[bool, str]] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        seen.append((os.path.isdir(f"/proc/self/fd/{descriptor}"), file.read_text()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(file, "new")
    assert seen == [(False, "old"), (True, "new")]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "latest"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, "new")
    assert file.read_text() == "old"


def refuse(source: int, target: int, count: int) -> int:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def copy_a_little(source: int, target: int, count: int) -> int:
    if os.lseek(source, 0, os.SEEK_CUR) > 3:
        return refuse(source, target, count)
    return os.write(target, os.read(source, 5))


def copy_nothing(source: int, target: int, count: int) -> int:
    return 0  # as some file systems do


@pytest.mark.parametrize("kernel", [None, refuse, copy_a_little, copy_nothing, "no such call"])
def test_a_part_of_a_file_is_copied_whatever_the_kernel_can(
    kernel: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(300_000)
    (tmp_path / "in").write_bytes(content)
    if kernel == "no such call":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif kernel is not None:
        monkeypatch.setattr(os, "copy_file_range", kernel, raising=False)
    with (tmp_path / "in").open("rb", 0) as source, (tmp_path / "out").open("wb", 0) as out:
        out.write(b"before")
        source.seek(3)
        copy_bytes(source.fileno(), out.fileno(), 290_000)
        assert source.tell() == 290_003
        copy_bytes(source.fileno(), out.fileno(), 0)
    assert (tmp_path / "out").read_bytes() == b"before" + content[3:290_003]


def test_a_source_that_ends_early_and_a_full_disk_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: int, target: int, count: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "in").write_bytes(bytes(10))
    with (tmp_path / "in").open("rb", 0) as source, (tmp_path / "out").open("wb", 0) as out:
        with pytest.raises(EOFError, match="ended 2 bytes early"):
            copy_bytes(source.fileno(), out.fileno(), 12)
        monkeypatch.setattr(os, "copy_file_range", full, raising=False)
        with pytest.raises(OSError, match="No space"):
            copy_bytes(source.fileno(), out.fileno(), 1)
