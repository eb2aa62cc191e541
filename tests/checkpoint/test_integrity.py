"""Checksums find what sizes do not show."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from megagrow.checkpoint import integrity
from megagrow.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("__0_0.distcp", "__0_1.distcp", "__10_0.distcp", "common.pt"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return tmp_path


def test_the_checksum_is_crc32(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # more than one read
    (tmp_path / "file").write_bytes(content)
    assert integrity.checksum(tmp_path / "file") == zlib.crc32(content)


def test_noted_checksums_are_taken_and_their_files_removed(folder: Path) -> None:
    integrity.note(folder, "__0_*")
    assert sorted(path.name for path in folder.glob("*.crc32")) == [
        "__0_0.distcp.crc32",
        "__0_1.distcp.crc32",
    ]
    # Changed after it was noted: what is collected is what was noted, not what is there now.
    noted = integrity.checksum(folder / "__0_0.distcp")
    (folder / "__0_0.distcp").write_bytes(b"x" * 12_000)
    files = integrity.collect(folder)
    assert files["__0_0.distcp"] == {"bytes": 12_000, "crc32": noted}
    assert sorted(files) == ["__0_0.distcp", "__0_1.distcp", "__10_0.distcp", "common.pt"]
    assert not list(folder.glob("*.crc32"))


@pytest.mark.parametrize("torn", ["", "12"])
def test_a_note_cut_short_by_a_full_disk_is_not_believed(folder: Path, torn: str) -> None:
    (folder / "common.pt.crc32").write_text(torn)
    content = (folder / "common.pt").read_bytes()
    assert integrity.collect(folder)["common.pt"]["crc32"] == zlib.crc32(content)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_ranks_together_find_one_flipped_bit_in_any_file(folder: Path, ranks: int) -> None:
    files = integrity.collect(folder)
    for name in files:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        integrity.check_sizes(folder, files, "mend")
        found = [_check(folder, files, rank, ranks) for rank in range(ranks)]
        assert [text for text in found if text] == [
            f"{folder / name} is damaged: its checksum is not the one it was written with. mend"
        ]
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    assert not any(_check(folder, files, rank, ranks) for rank in range(ranks))


def test_a_file_that_a_rank_does_not_see_is_its_error_to_mend(folder: Path) -> None:
    files = integrity.collect(folder)
    (folder / "__10_0.distcp").unlink()
    found = [_check(folder, files, rank, 2) for rank in range(2)]
    assert [bool(text) for text in found] == [True, False]
    assert re.search(r"__10_0\.distcp cannot be read on \S+: .*No such file.* mend$", found[0])


def _check(folder: Path, files: dict[str, dict[str, int]], rank: int, ranks: int) -> str:
    try:
        integrity.check_contents(folder, files, "mend", rank=rank, ranks=ranks)
    except CheckpointError as error:
        return str(error)
    return ""
