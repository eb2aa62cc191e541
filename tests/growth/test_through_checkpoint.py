"""The scratch folder that growth goes through: made, filled, read, and gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from megagrow.errors import CheckpointError, LayoutError, TrainingError
from megagrow.growth import through_checkpoint
from megagrow.growth.through_checkpoint import SCRATCH_PREFIX
from tests.distributed import World


def _write(payload: bytes, folder: Path) -> None:
    from megagrow.runtime import processes

    (folder / "inner").mkdir(exist_ok=True)
    (folder / "inner" / f"rank{processes.rank()}").write_bytes(payload)
    processes.barrier()


def _read(seen: list[Any], folder: Path) -> None:
    seen.append((folder.name, sorted(path.name for path in folder.rglob("rank*"))))


def _grow(scratch: Path, payload: bytes) -> tuple[Any, Any]:
    seen: list[Any] = []
    cost = through_checkpoint.grow(partial(_write, payload), partial(_read, seen), scratch=scratch)
    return seen, cost


def test_ranks_share_one_folder_and_remove_it(world2: World, tmp_path: Path) -> None:
    scratch = tmp_path / "not" / "there" / "yet"
    (first, cost), (second, other_cost) = world2.run(_grow, scratch, b"x" * 1000)
    assert first == second
    ((name, files),) = first
    assert name.startswith(SCRATCH_PREFIX)
    assert files == ["rank0", "rank1"]
    assert list(scratch.iterdir()) == []
    assert cost.bytes_moved == other_cost.bytes_moved == 2000
    assert 0 < cost.seconds < 60
    assert cost.peak_bytes > 1_000_000


def test_two_growths_never_share_a_folder(world2: World, tmp_path: Path) -> None:
    names = [world2.run(_grow, tmp_path, b"x")[0][0][0][0] for _ in range(2)]
    assert names[0] != names[1]


def _fail(scratch: Path, where: str) -> str:
    """The error of a growth that fails in one part, on every rank."""

    def write(folder: Path) -> None:
        _write(b"x", folder)
        if where == "writing":
            raise TrainingError("no luck writing")

    def read(folder: Path) -> None:
        raise TrainingError("no luck reading")

    try:
        through_checkpoint.grow(write, read, scratch=scratch)
    except TrainingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("where", ["writing", "reading"])
def test_the_folder_is_removed_after_a_failure(world1: World, tmp_path: Path, where: str) -> None:
    assert world1.run(_fail, tmp_path, where) == [f"no luck {where}"]
    assert list(tmp_path.iterdir()) == []


def _refused(scratch: Path) -> str:
    try:
        _grow(scratch, b"x")
    except CheckpointError as error:
        return str(error)
    return ""


def test_a_scratch_that_cannot_be_written_is_one_clear_error_on_every_rank(
    world2: World, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for message in world2.run(_refused, file):
        assert str(file) in message
        assert "growth_scratch" in message


def _sizes_read(scratch: Path) -> tuple[int, int]:
    sizes = []
    size = through_checkpoint._size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            through_checkpoint, "_size", lambda folder: sizes.append(size(folder)) or sizes[-1]
        )
        _, cost = _grow(scratch, b"x" * 10)
    return len(sizes), cost.bytes_moved


def test_one_rank_counts_the_bytes(world2: World, tmp_path: Path) -> None:
    assert world2.run(_sizes_read, tmp_path) == [(1, 20), (0, 20)]


def _in_own_folder(folders: Sequence[Path], needed_bytes: int, grows: bool) -> tuple[str, str]:
    """The error of a check, or a growth, through `scratch` in a working folder of each rank."""
    from megagrow.runtime import processes

    before = Path.cwd()
    os.chdir(folders[processes.rank()])
    wrote: list[Path] = []
    try:
        if grows:
            through_checkpoint.grow(
                wrote.append, wrote.append, scratch=Path("scratch"), needed_bytes=needed_bytes
            )
        else:
            through_checkpoint.check_scratch(Path("scratch"), needed_bytes=needed_bytes)
    except (CheckpointError, LayoutError) as error:
        assert not wrote
        return type(error).__name__, str(error)
    finally:
        os.chdir(before)
    return "", ""


@pytest.fixture
def apart(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, as two machines would have under one name."""
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        (folder / "scratch").mkdir(parents=True)
    return folders


@pytest.mark.parametrize("grows", [False, True])
def test_a_scratch_that_one_process_does_not_see_is_found_before_anything_is_written(
    world2: World, apart: tuple[Path, Path], grows: bool
) -> None:
    first, other = world2.run(_in_own_folder, apart, 0, grows)
    assert first == other
    kind, message = first
    assert kind == "LayoutError"
    assert "rank 1 on " in message
    assert "checkpoint.growth_scratch" in message
    assert "visible to every process" in message
    assert list((apart[0] / "scratch").iterdir()) == []


@pytest.mark.parametrize("grows", [False, True])
def test_a_scratch_without_room_is_found_before_anything_is_written(
    world2: World, apart: tuple[Path, Path], grows: bool
) -> None:
    shared = apart[0], apart[0]
    first, other = world2.run(_in_own_folder, shared, 10**18, grows)
    assert first == other
    kind, message = first
    assert kind == "CheckpointError"
    assert "growth needs about 1000000000.00 GB" in message
    assert "checkpoint.growth_scratch" in message
    assert list((apart[0] / "scratch").iterdir()) == []


def test_a_good_scratch_is_left_empty(world2: World, apart: tuple[Path, Path]) -> None:
    shared = apart[0], apart[0]
    assert world2.run(_in_own_folder, shared, 1000, False) == [("", "")] * 2
    assert list((apart[0] / "scratch").iterdir()) == []


def test_clean_removes_what_a_killed_growth_left_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / f"{SCRATCH_PREFIX}0123"
    (left / "inner").mkdir(parents=True)
    (left / "inner" / "file").write_text("half")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}")
    through_checkpoint.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "metrics.jsonl"]
    through_checkpoint.clean(tmp_path / "absent")
