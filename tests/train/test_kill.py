"""A run killed at any moment and started again is the run that was never killed, bit by bit.

Every kill is a SIGKILL of all processes of the run. The layout differs from test to test.
MEGAGROW_KILLS=20 makes the random test long, MEGAGROW_LAYOUT chooses its layout.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.train import trial

LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "pp2": {},
    # Two replicas share the optimizer's state; there are master weights beside the weights.
    "dp2-bf16": {
        "parallel.pipeline": 1,
        "precision": "bf16",
        "stages.1.transition.through": "checkpoint",
    },
    "dp2-to-pp2": {
        "parallel.pipeline": 1,
        "stages.1.parallel": {"pipeline": 2},
        "stages.1.transition.through": "checkpoint",
    },
}


@pytest.fixture
def reference(layout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not LAYOUTS[layout]:
        return trial.reference(tmp_path_factory)
    return trial.reference(tmp_path_factory, LAYOUTS[layout], f"_{layout}")


@pytest.fixture
def file(layout: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial.configure(tmp_path, trial.shared_data(tmp_path_factory), LAYOUTS[layout])


def _kill_at(file: Path, event: str, pattern: str) -> Path:
    """Starts the run, kills it at a moment; its folder."""
    with trial.Job(file, freeze_at=(event, pattern)) as job:
        job.until_frozen()
        job.kill()
        job.assert_gone()
        return job.run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("layout", ["dp2-bf16"])
def test_killed_at_a_step_then_while_it_grows_then_while_it_saves(
    file: Path, reference: Path
) -> None:
    with trial.Job(file) as job:
        job.until(lambda: trial.checkpoints(job.run))
        job.kill()
        job.assert_gone()
    run = job.run
    assert 2 <= max(trial.losses(run)) < trial.STEPS

    # The old model is in the scratch folder, the new one has not read it.
    _kill_at(file, "open", r"\.growth-.*/\.metadata r")
    assert len(list(run.glob(".growth-*/*.distcp"))) >= 2

    # In the background, in a forked process, while the training goes on.
    _kill_at(file, "open", r"\.partial-.*\.distcp w")
    assert list((run / "checkpoints").glob(".partial-*"))
    assert not list(run.glob(".growth-*"))

    trial.train(file)
    assert trial.leftovers(run) == []
    assert len(trial.resumed_at(run)) == 3
    trial.assert_same(run, reference)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("layout", ["dp2-to-pp2"])
def test_killed_while_it_writes_for_growth_then_before_latest_moves(
    file: Path, reference: Path
) -> None:
    run = _kill_at(file, "open", r"\.growth-.*\.distcp w")
    assert list(run.glob(".growth-*"))

    before = (run / "checkpoints" / "latest").read_text()
    _kill_at(file, "open", r"checkpoints/\.latest\.tmp w")
    assert (run / "checkpoints" / "latest").read_text() == before
    assert trial.checkpoints(run)[-1] > before.strip()

    trial.train(file)
    assert trial.leftovers(run) == []
    assert trial.checkpoints(run) == ["step_00000010", "step_00000012"]
    trial.assert_same(run, reference)


IN_MEMORY = {"stages.1.transition.through": "memory"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("layout", ["dp2-to-pp2"])
@pytest.mark.parametrize("moment", ["shards.py:publish", "exchange.py:_unpack"])
def test_killed_while_it_grows_in_memory(
    layout: str,
    moment: str,
    reference: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The reference grew through a checkpoint."""
    changes = {**LAYOUTS[layout], **IN_MEMORY}
    file = trial.configure(tmp_path, trial.shared_data(tmp_path_factory), changes)
    run = _kill_at(file, "call", moment)
    assert trial.checkpoints(run)[-1] == "step_00000005"
    trial.train(file)
    assert trial.resumed_at(run) == [5]
    trial.assert_same(run, reference)


@pytest.mark.parametrize("layout", ["dp2-to-pp2"])
def test_the_others_end_with_an_error_when_one_rank_dies_while_it_grows(
    layout: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changes = {**LAYOUTS[layout], **IN_MEMORY}
    file = trial.configure(tmp_path, trial.shared_data(tmp_path_factory), changes)
    with trial.Job(file, freeze_at=("call", "exchange.py:_unpack")) as job:
        frozen = job.until_frozen()
        victim = [root.pid for root in job.roots].index(frozen.pid)
        frozen.kill()
        begun = time.monotonic()
        codes = job.wait()
        assert time.monotonic() - begun < 60.0  # gloo notices at once; the rest is a busy machine
        job.assert_gone()
    assert (codes[victim], codes[1 - victim]) == (-9, 1)
    assert "another process is gone" in job.output
    assert "Traceback" not in job.output
    # Rank 0 keeps it.
    assert trial.status(job.run)["state"] == ("running" if victim == 0 else "failed")
    assert trial.checkpoints(job.run)[-1] == "step_00000005"


@pytest.mark.timeout(0)
@pytest.mark.parametrize("layout", [os.environ.get("MEGAGROW_LAYOUT", "pp2")])
def test_killed_again_and_again_at_random(file: Path, reference: Path) -> None:
    seed = int(os.environ.get("MEGAGROW_SEED", time.time_ns() % 100_000))
    kills = int(os.environ.get("MEGAGROW_KILLS", 1))
    print(f"MEGAGROW_SEED={seed} MEGAGROW_KILLS={kills}")
    choose = random.Random(seed)
    for _ in range(kills):
        with trial.Job(file) as job:
            done = len(list(trial.records(job.run, strict=False)))
            wanted = done + choose.randint(2, 8)
            _until_records(job, wanted)
            time.sleep(choose.random() * 0.5)
            job.kill()
            job.assert_gone()
    run = trial.train(file)
    assert trial.leftovers(run) == []
    trial.assert_same(run, reference)


def _until_records(job: trial.Job, count: int) -> None:
    def ready() -> bool:
        ended = all(root.poll() == 0 for root in job.roots)
        return ended or len(list(trial.records(job.run, strict=False))) >= count

    job.until(ready)


@pytest.mark.parametrize("layout", ["pp2"])
def test_the_others_end_with_an_error_when_one_rank_is_killed(file: Path) -> None:
    with trial.Job(file) as job:
        job.until_step(2)
        victim = job.roots[1]
        victim.kill()
        begun = time.monotonic()
        codes = job.wait()
        assert time.monotonic() - begun < 60.0  # gloo notices at once; the rest is a busy machine
        job.assert_gone()
    assert codes == [1, -9]
    assert "another process is gone" in job.output
    assert "Traceback" not in job.output
    assert trial.status(job.run)["state"] == "failed"
