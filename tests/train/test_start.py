"""The start of a run: one rank looks at the disk for all, and no two starts share a folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from megagrow.checkpoint import integrity
from megagrow.data import buckets
from tests.distributed import World
from tests.train import trial

SHORT: Mapping[str, Any] = {"stages": [trial.CONFIG["stages"][0]]}

COUNTED: Sequence[tuple[Any, str]] = (
    (buckets, "inspect"),
    (buckets, "check_tokens"),
    (integrity, "check_sizes"),
)
"""Functions that read the disk; what they cost grows with the data or the checkpoint."""


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial.shared_data(tmp_path_factory)


def _counted_attempt(file: str) -> tuple[int, dict[str, int]]:
    calls = {name: 0 for _, name in COUNTED}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for module, name in COUNTED:
            patch.setattr(module, name, counting(name, getattr(module, name)))
        code, message = trial.attempt(file, ("limits.wall_time=0.001",))
    assert not message
    return code, calls


def test_one_rank_reads_the_indices_the_tokens_and_the_sizes(
    tmp_path: Path, data: Path, world2: World
) -> None:
    file = trial.configure(tmp_path, data, SHORT)
    none = {"inspect": 0, "check_tokens": 0, "check_sizes": 0}
    begun = {"inspect": 2, "check_tokens": 2, "check_sizes": 0}
    assert world2.run(_counted_attempt, str(file)) == [(75, begun), (75, none)]
    resumed = {**begun, "check_sizes": 1}
    assert world2.run(_counted_attempt, str(file)) == [(75, resumed), (75, none)]


def _attempt_in(folders: Sequence[Path], file: str, *overrides: str) -> tuple[int, str]:
    """A start of ranks that each have a working folder, like machines that share no disk."""
    from megagrow.runtime import processes

    before = Path.cwd()
    os.chdir(folders[processes.rank()])
    try:
        return trial.attempt(file, overrides)
    finally:
        os.chdir(before)


@pytest.fixture
def apart(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    return folders


def test_data_that_one_rank_does_not_see_is_one_error_on_all(
    tmp_path: Path, data: Path, apart: tuple[Path, Path], world2: World
) -> None:
    shutil.copytree(data, apart[0] / "data")
    file = trial.configure(tmp_path, Path("data"), SHORT)
    first, other = world2.run(_attempt_in, apart, str(file), timeout=120.0)
    assert first == other
    code, message = first
    assert code == 2
    assert "bucket 'easy': data/easy cannot be read (No such file" in message
    assert "every process sees" in message


def test_rank_0_alone_decides_from_which_checkpoint_to_go_on(
    tmp_path: Path, data: Path, apart: tuple[Path, Path], world2: World
) -> None:
    file = str(trial.configure(tmp_path, data, {**SHORT, "output": "run"}))
    stale = apart[1] / "run" / "checkpoints" / "latest"
    stale.parent.mkdir(parents=True)
    stale.write_text("step_00000099")  # as an old view of a network file system may have it
    stop = "limits.wall_time=0.001"
    shared = apart[0], apart[0]
    assert world2.run(_attempt_in, shared, file, stop) == [(75, "")] * 2
    first, other = world2.run(_find_in, apart, file, timeout=120.0)
    assert first == other == "run/checkpoints/step_00000001"
    # Where rank 0 sees what is wrong, all say so.
    first, other = world2.run(_find_in, apart[::-1], file, timeout=120.0)
    assert first == other
    assert "names 'step_00000099', which is not a complete checkpoint" in first


def _find_in(folders: Sequence[Path], file: str) -> str:
    from megagrow.config import load
    from megagrow.errors import CheckpointError
    from megagrow.runtime import processes
    from megagrow.train.pretrain import find_checkpoint

    before = Path.cwd()
    os.chdir(folders[processes.rank()])
    try:
        return str(find_checkpoint(load(file, ["output=run"]), "auto"))
    except CheckpointError as error:
        return str(error)
    finally:
        os.chdir(before)


def test_a_second_start_of_a_live_run_is_refused_and_touches_nothing(
    tmp_path: Path, data: Path, world2: World
) -> None:
    file = trial.configure(tmp_path, data, SHORT)
    run = tmp_path / "run"
    partial = run / "checkpoints" / ".partial-0123"
    partial.mkdir(parents=True)
    (partial / "weights").write_text("half")
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("pid 12 on node7\n")
        lock.flush()
        before = trial.content(run)
        code, message = trial.start(world2, file)
        assert code == 2
        assert "another process (pid 12 on node7) is writing to this run folder" in message
        assert "wait for it or set `output`" in message
        assert trial.content(run) == before
    assert trial.start(world2, file) == (0, "")
    assert not partial.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_while_a_writer_saves_can_be_started_at_once(
    tmp_path: Path, data: Path
) -> None:
    file = trial.configure(tmp_path, data)
    # Frozen with it: the writer, forked by the trainer, that rank 0's death leaves behind.
    with trial.Job(file, freeze_at=("open", r"\.partial-.*\.distcp w")) as job:
        job.until_frozen()
        for root in job.roots:
            root.kill()
            root.wait()
        trial.train(file)
    assert trial.status(tmp_path / "run")["state"] == "completed"
