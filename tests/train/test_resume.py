"""Starting a run again: where it goes on, under which layout, and when it refuses."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.distributed import World
from tests.train import trial


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial.shared_data(tmp_path_factory)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_replicas_then_two_stages_then_one_process_give_the_same_losses(
    tmp_path: Path, data: Path
) -> None:
    # Without dropout: its masks depend on the layout.
    file = trial.configure(tmp_path / "moving", data, {"model.dropout": 0.0})
    for step, layout in ((2, "parallel.pipeline=1"), (7, "parallel.pipeline=2")):
        with trial.Job(file, layout) as job:
            job.until_step(step)
            for root in job.roots:
                root.send_signal(signal.SIGTERM)
            assert job.wait() == [75, 75], job.output
            job.assert_gone()
    moving = trial.train(file, "parallel.pipeline=1", processes=1)
    stayed = trial.configure(
        tmp_path / "staying", data, {"model.dropout": 0.0, "parallel.pipeline": 1}
    )
    staying = trial.train(stayed, processes=1)

    starts = [record for record in trial.records(moving) if record["event"] == "run"]
    assert [start["world_size"] for start in starts] == [2, 2, 1]
    assert trial.losses(moving) == pytest.approx(trial.losses(staying), rel=1e-5)
    drawn = [
        [(r["step"], r["samples"]) for r in trial.records(run) if r["event"] == "step"]
        for run in (moving, staying)
    ]
    assert drawn[0] == drawn[1]  # no sample twice, none left out
    for found, expected in zip(_evaluations(moving), _evaluations(staying), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def _evaluations(run: Path) -> list[dict[str, float]]:
    return [record["losses"] for record in trial.records(run) if record["event"] == "eval"]


def test_checkpoints_come_by_tokens_and_as_many_are_kept_as_asked_for(
    tmp_path: Path, data: Path, world2: World
) -> None:
    file = trial.configure(
        tmp_path,
        data,
        {
            # Steps of 64 tokens up to 192, then of 128 up to 704.
            "stages.0.tokens": 192,
            "stages.1.tokens": 512,
            "stages.1.batch": {"global_size": 8},
            "stages.1.layers": 2,
            "stages.1.transition": None,
            "checkpoint.interval": 192,
            "checkpoint.keep": 3,
        },
    )
    assert trial.start(world2, file) == (0, "")
    run = tmp_path / "run"
    saved = [record for record in trial.records(run) if record["event"] == "checkpoint"]
    # The end of the first stage is a multiple of the interval too; then 448, 576 and the end.
    assert [record["tokens"] for record in saved] == [192, 448, 576, 704]
    assert trial.checkpoints(run) == ["step_00000005", "step_00000006", "step_00000007"]
    assert trial.leftovers(run) == []


def test_auto_begins_where_there_is_nothing_and_goes_on_where_there_is_something(
    tmp_path: Path, data: Path, world2: World
) -> None:
    file = trial.configure(tmp_path, data, {"stages": [trial.CONFIG["stages"][0]]})
    run = tmp_path / "run"
    assert trial.start(world2, file, "limits.wall_time=0.001") == (75, "")
    assert trial.resumed_at(run) == []
    assert trial.start(world2, file) == (0, "")
    assert trial.resumed_at(run) == [1]
    whole = trial.losses(run)
    assert sorted(whole) == [1, 2, 3, 4, 5]

    # A run that is complete stays as it is.
    checkpoints = trial.content(run / "checkpoints")
    assert trial.start(world2, file) == (0, "")
    assert trial.losses(run) == whole
    assert trial.content(run / "checkpoints") == checkpoints
    assert trial.status(run)["state"] == "completed"

    # Never: not over a run that has checkpoints.
    code, message = trial.start(world2, file, resume="never")
    assert code == 2
    assert "holds checkpoints; --resume never would overwrite that run" in message
    assert trial.content(run / "checkpoints") == checkpoints

    # A named one, older than the newest: what follows it is done again, to the same numbers.
    older = run / "checkpoints" / trial.checkpoints(run)[0]
    assert older.name == "step_00000004"
    assert trial.start(world2, file, resume=str(older)) == (0, "")
    assert trial.resumed_at(run)[-1] == 4
    assert trial.losses(run) == whole
    assert (run / "checkpoints" / "latest").read_text().strip() == "step_00000005"

    # A named one of somewhere else, into an empty folder: a branch.
    branch = trial.configure(tmp_path / "branch", data, {"stages": [trial.CONFIG["stages"][0]]})
    assert trial.start(world2, branch, resume=str(older)) == (0, "")
    assert trial.losses(tmp_path / "branch" / "run") == {5: whole[5]}

    # Never is fine where nothing is, and gives the same run.
    shutil.rmtree(tmp_path / "branch" / "run")
    assert trial.start(world2, branch, resume="never") == (0, "")
    assert trial.losses(tmp_path / "branch" / "run") == whole
