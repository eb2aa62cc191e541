"""Asked to stop, a run saves at the next step boundary and later goes on as if it had not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.train import trial

EXIT_REQUEUE = 75


@pytest.fixture
def file(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial.configure(tmp_path, trial.shared_data(tmp_path_factory))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_to_torchrun_sigusr1_to_one_trainer_and_the_wall_time(
    file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with trial.Job(file, torchrun=True) as job:
        job.until_step(1)
        job.roots[0].send_signal(signal.SIGTERM)
        assert job.wait() != [0]
        job.assert_gone()
    first = _stopped(job.run, "preempted")
    assert 1 <= first < trial.STEPS

    with trial.Job(file) as job:
        job.until_step(first + 1)
        job.roots[1].send_signal(signal.SIGUSR1)  # rank 0 must hear of it
        assert job.wait() == [EXIT_REQUEUE, EXIT_REQUEUE], job.output
        job.assert_gone()
    second = _stopped(job.run, "preempted")
    assert first < second < trial.STEPS

    with trial.Job(file, "limits.wall_time=0.001") as job:
        assert job.wait() == [EXIT_REQUEUE, EXIT_REQUEUE], job.output
        job.assert_gone()
    assert _stopped(job.run, "wall_time") == second + 1
    assert "Traceback" not in job.output

    trial.train(file)
    assert trial.resumed_at(job.run) == [first, second, second + 1]
    trial.assert_same(job.run, trial.reference(tmp_path_factory))


def test_a_second_interrupt_ends_at_once(file: Path) -> None:
    with trial.Job(
        file,
        "parallel.pipeline=1",
        "checkpoint.interval=100K",
        processes=1,
        freeze_at=("open", r"\.state\.json\.tmp w"),
    ) as job:
        job.until_step(1)
        job.roots[0].send_signal(signal.SIGINT)
        job.until_frozen()  # in the save that the first one asked for
        job.roots[0].send_signal(signal.SIGINT)
        assert job.wait(patience=60.0) == [130]
        job.assert_gone()
    assert "interrupted" in job.output
    assert "Traceback" not in job.output
    assert trial.checkpoints(job.run) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_every_process_spares_the_helpers_that_save(
    file: Path, number: signal.Signals
) -> None:
    with trial.Job(file, "parallel.pipeline=1", processes=1) as job:
        job.until(lambda: trial.checkpoints(job.run))
        for each in job.tree():
            each.send_signal(number)
        assert job.wait() == [EXIT_REQUEUE], job.output
        job.assert_gone()
    _stopped(job.run, "preempted")
    assert "Traceback" not in job.output


def _stopped(run: Path, reason: str) -> int:
    """The step a run stopped at, where its newest checkpoint must be."""
    status = trial.status(run)
    assert status["state"] == reason, status
    assert status["exit_code"] == EXIT_REQUEUE
    step = int(status["step"])
    assert step == max(trial.losses(run))
    assert (run / "checkpoints" / "latest").read_text().strip() == f"step_{step:08d}"
    assert trial.leftovers(run) == []
    return step
