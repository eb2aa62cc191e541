"""Small files are old or new, never half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megagrow.runtime.files import write_atomically


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
