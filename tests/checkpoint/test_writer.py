"""Saving in the background: complete or not there, and the same content as saving at once."""

from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from megagrow.checkpoint import integrity
from megagrow.checkpoint.store import CheckpointStore, read_state
from megagrow.checkpoint.writer import CheckpointWriter, Saved
from megagrow.config import load
from megagrow.errors import CheckpointError
from megagrow.plan.schedule import make_plan
from megagrow.runtime import processes
from megagrow.train.engine import Engine, build_engine
from tests.distributed import World
from tests.train import trial


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(trial.configure(tmp_path, tmp_path))


def _engine(file: str) -> Engine:
    config = load(file)
    return build_engine(
        config, make_plan(config, processes.world_size()).stages[0], draws=lambda _: True
    )


def _writer(folder: str, saved: list[Saved], *, asynchronous: bool) -> CheckpointWriter:
    store = CheckpointStore(folder=Path(folder), keep=9)
    return CheckpointWriter(store, asynchronous=asynchronous, on_saved=saved.append)


def _save_both_ways(file: str, folder: str) -> list[dict[str, Any]]:
    """Saves step 1 in the background and step 2 at once; what each left."""
    engine = _engine(file)
    saved: list[Saved] = []
    writer = _writer(folder, saved, asynchronous=True)
    writer.save(engine.trained(3), 1, {"number": 1}, needed_bytes=0)
    # What happens to the weights from now on must not reach the file.
    before = len(list(Path(folder).glob("step_*")))
    with torch.no_grad():
        for chunk in engine.chunks:
            for parameter in chunk.parameters():
                parameter.add_(1.0)
    writer.wait()
    with torch.no_grad():
        for chunk in engine.chunks:
            for parameter in chunk.parameters():
                parameter.sub_(1.0)
    writer.save(engine.trained(3), 2, {"number": 2}, needed_bytes=0, blocking=True)
    writer.close()
    engine.release()
    return [
        {"step": each.step, "blocking": each.blocking, "path": str(each.path), "before": before}
        for each in saved
    ]


def test_a_background_save_is_complete_only_at_its_end_and_checked(
    file: str, tmp_path: Path, world2: World
) -> None:
    folder = tmp_path / "checkpoints"
    main, other = world2.run(_save_both_ways, file, str(folder))
    assert other == []  # rank 0 alone writes the folder
    assert [(each["step"], each["blocking"]) for each in main] == [(1, False), (2, True)]
    assert main[0]["before"] == 0
    for number, each in enumerate(main, start=1):
        path = Path(each["path"])
        state = read_state(path)
        assert state["number"] == number
        for name, written in state["files"].items():
            content = (path / name).read_bytes()
            assert written == {"bytes": len(content), "crc32": zlib.crc32(content)}, name
        tensors = {name for name in state["files"] if name.endswith(".distcp")}
        assert {name.split("_")[2] for name in tensors} == {"0", "1"}  # both ranks wrote
    assert (folder / "latest").read_text() == "step_00000002"
    assert not list(folder.glob(".partial-*"))
    assert not list(folder.rglob("*.crc32"))


def _fail_to_write_the_format(file: str, folder: str) -> str:
    engine = _engine(file)
    writer = _writer(folder, [], asynchronous=True)
    writer.save(engine.trained(0), 1, {}, needed_bytes=0)
    if processes.is_main():
        (partial,) = Path(folder).glob(".partial-*")
        (partial / "metadata.json").mkdir()  # rank 0's last file cannot be opened
    try:
        writer.wait()
    except CheckpointError as error:
        return str(error)
    finally:
        engine.release()
    return ""


def test_every_rank_hears_that_rank_0_could_not_write_the_last_file(
    file: str, tmp_path: Path, world2: World
) -> None:
    folder = tmp_path / "checkpoints"
    main, other = world2.run(_fail_to_write_the_format, file, str(folder))
    assert "saving failed: [Errno 21] Is a directory" in main
    assert other == main
    assert list(folder.iterdir()) == []  # nothing half written is left


def _count_checksums(file: str, folder: str) -> list[str]:
    """Which files rank 0 had to read again to commit a save of both ranks."""
    engine = _engine(file)
    read: list[str] = []
    checksum = integrity.checksum

    def counted(path: Path) -> int:
        read.append(path.name)
        return checksum(path)

    integrity.checksum = counted
    try:
        writer = _writer(folder, [], asynchronous=True)
        writer.save(engine.trained(0), 1, {}, needed_bytes=0)
        writer.close()
    finally:
        integrity.checksum = checksum
        engine.release()
    return read


def test_no_rank_waits_for_the_checksums_of_tensors(
    file: str, tmp_path: Path, world2: World
) -> None:
    main, other = world2.run(_count_checksums, file, str(tmp_path / "checkpoints"))
    # megatron-core 0.19 keeps in .metadata what 0.16 has in common.pt.
    assert (
        {".metadata", "metadata.json"} <= set(main) <= {".metadata", "common.pt", "metadata.json"}
    )
    assert other == []


def _save_where_it_cannot(file: str, folder: str) -> str:
    engine = _engine(file)
    saved: list[Saved] = []
    writer = _writer(folder, saved, asynchronous=True)
    try:
        writer.save(engine.trained(0), 1, {}, needed_bytes=2**62)
    except CheckpointError as error:
        return str(error)
    finally:
        engine.release()
    return ""


def test_no_room_fails_on_every_rank_alike(file: str, tmp_path: Path, world2: World) -> None:
    main, other = world2.run(_save_where_it_cannot, file, str(tmp_path / "checkpoints"))
    assert main == other
    assert "are free" in main


def _abandon(file: str, folder: str) -> int:
    import psutil

    engine = _engine(file)
    writer = _writer(folder, [], asynchronous=True)
    # The first save starts the helper that all later ones share.
    writer.save(engine.trained(0), 1, {}, needed_bytes=0, blocking=True)
    helpers = {each.pid for each in psutil.Process().children(recursive=True)}
    writer.save(engine.trained(0), 2, {}, needed_bytes=0)
    writer.abandon()
    processes.barrier()
    engine.release()
    return len({each.pid for each in psutil.Process().children(recursive=True)} - helpers)


def test_an_abandoned_save_leaves_no_process_and_no_checkpoint(
    file: str, tmp_path: Path, world2: World
) -> None:
    folder = tmp_path / "checkpoints"
    assert world2.run(_abandon, file, str(folder)) == [0, 0]
    assert [path.name for path in folder.glob("step_*")] == ["step_00000001"]
    state = json.loads((folder / "step_00000001" / "state.json").read_text())
    assert state["step"] == 1
    store = CheckpointStore(folder=folder, keep=1)
    store.clean()
    assert not list(folder.glob(".partial-*"))


def _save_without_room_for_the_index(file: str, folder: str) -> str:
    """What a save says whose very last file, which rank 0 alone writes, finds the disk full."""
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    engine = _engine(file)
    writer = _writer(folder, [], asynchronous=True)
    whole = FileSystemWriterAsync.finish
    FileSystemWriterAsync.finish = _no_space
    try:
        writer.save(engine.trained(0), 1, {}, needed_bytes=0)
        writer.wait()
    except CheckpointError as error:
        return str(error)
    finally:
        FileSystemWriterAsync.finish = whole
        writer.abandon()
        engine.release()
    return ""


def _no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_index_that_finds_no_room_fails_on_every_rank_alike(
    file: str, tmp_path: Path, world2: World
) -> None:
    folder = str(tmp_path / "checkpoints")
    main, other = world2.run(_save_without_room_for_the_index, file, folder, timeout=60)
    assert main == other
    assert "No space left on device" in main
