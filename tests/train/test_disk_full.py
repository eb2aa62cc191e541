"""A disk that fills up costs the checkpoint being written, and no other."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from megagrow.growth import through_checkpoint
from megagrow.runtime import processes
from tests.distributed import World
from tests.train import trial

FULL = "No space left on device|File too large|could not be written to its end"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "megagrow-test", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk; the test of a file size limit covers this")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


THROUGH = {"stages.1.transition.through": "checkpoint"}


def _leave(folder: Path, free: int) -> Path:
    """Fills a disk up to `free` bytes."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    size = shutil.disk_usage(folder).free - free
    with filler.open("wb") as stream, contextlib.suppress(OSError):
        stream.write(bytes(size))
    return filler


def _save_needs(file: Path, layers: int) -> int:
    """Bytes the trainer asks for before it saves."""
    from megagrow.checkpoint.store import BYTES_PER_PARAMETER
    from megagrow.config import load
    from megagrow.plan.schedule import make_plan

    stages = {stage.shape.num_layers: stage for stage in make_plan(load(file), 2).stages}
    return stages[layers].parameters.total * BYTES_PER_PARAMETER


def _attempt_filling(disk: Path, free: int, file: str, override: str) -> tuple[int, str]:
    """A start whose disk is filled up to `free` bytes once growth has its folder there."""
    make = through_checkpoint._make
    made = []

    def make_and_fill(scratch: Path, needed_bytes: int) -> Path:
        made.append(make(scratch, needed_bytes))
        if len(made) == 2 and processes.is_main():  # the first is the check at the start
            _leave(disk, free)
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(through_checkpoint, "_make", make_and_fill)
        return trial.attempt(file, [override])


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path, tmp_path_factory: pytest.TempPathFactory, world2: World
) -> None:
    run = small_disk / "run"
    scratch = tmp_path / "scratch"
    changes = {
        "checkpoint.keep": 1,
        "checkpoint.growth_scratch": str(scratch),
        "output": str(run),
        **THROUGH,
    }
    file = trial.configure(tmp_path, trial.shared_data(tmp_path_factory), changes)

    # Room for two checkpoints of the small model, but not for one of the grown one beside that.
    filler = _leave(small_disk, 1_000_000)
    code, message = trial.start(world2, file)
    assert code == 2
    assert "a checkpoint needs about" in message
    assert "last complete checkpoint is intact" in message
    assert trial.checkpoints(run) == ["step_00000005"]
    good = trial.content(run / "checkpoints")

    # Enough by the estimate, which leaves out what the format adds: the save fails halfway.
    filler = _leave(small_disk, _save_needs(file, 4) + 20_000)
    code, message = trial.start(world2, file)
    assert code == 2
    assert "saving failed: " in message
    assert re.search(FULL, message), message
    assert "Traceback" not in message
    assert "last complete checkpoint is intact" in message
    assert trial.leftovers(run) == []  # the room it took is free again
    assert trial.content(run / "checkpoints") == good

    # The scratch folder of growth is on a full disk, the checkpoints are not.
    filler.unlink()
    small_scratch = small_disk / "scratch"
    small_scratch.mkdir()
    elsewhere = trial.configure(
        tmp_path / "elsewhere", trial.shared_data(tmp_path_factory), THROUGH
    )
    filler = _leave(small_disk, _save_needs(file, 2) - 20_000)
    code, message = trial.start(world2, elsewhere, f"checkpoint.growth_scratch={small_scratch}")
    assert code == 2
    assert "growth needs about" in message
    assert "checkpoint.growth_scratch" in message
    assert trial.losses(tmp_path / "elsewhere" / "run", strict=False) == {}  # found at the start

    # There was room, and something else takes it in the middle of the growth.
    filler.unlink()
    overrides = f"checkpoint.growth_scratch={small_scratch}"
    first, other = world2.run(_attempt_filling, small_disk, 100_000, str(elsewhere), overrides)
    assert first == other
    code, message = first
    assert code == 2
    assert "growing failed: " in message
    assert re.search(FULL, message), message
    assert "checkpoint.growth_scratch" in message
    grown = tmp_path / "elsewhere" / "run"
    assert trial.checkpoints(grown)[-1] == "step_00000005"

    # With room again, both runs are what they would have been.
    (small_disk / "filler").unlink()
    for again, folder in ((file, run), (elsewhere, grown)):
        assert trial.start(world2, again) == (0, "")
        trial.assert_same(folder, trial.reference(tmp_path_factory))


def _attempt_with_small_files(limit: int, file: str) -> tuple[int, str]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return trial.attempt(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_to_its_end_is_one_clear_error(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, world2: World
) -> None:
    file = trial.configure(
        tmp_path,
        trial.shared_data(tmp_path_factory),
        {"stages": [trial.CONFIG["stages"][0]]},
    )
    assert trial.start(world2, file, "limits.wall_time=0.001") == (75, "")
    run = tmp_path / "run"
    good = trial.content(run / "checkpoints")
    first, other = world2.run(_attempt_with_small_files, 100_000, str(file))
    assert first == other
    code, message = first
    assert code == 2
    assert "saving failed: " in message
    assert re.search(FULL, message), message
    assert trial.leftovers(run) == []
    assert trial.content(run / "checkpoints") == good
    assert trial.status(run)["state"] == "failed"
    assert trial.start(world2, file) == (0, "")
    assert trial.resumed_at(run) == [1, 1]
