"""The command on one GPU: bf16 steps, growth, an asynchronous save, a kill and a resume."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.train import trial

pytestmark = pytest.mark.gpu

CHANGES = {
    "precision": "bf16",
    "parallel.pipeline": 1,
    "model.hidden_size": 64,
    "model.ffn_hidden_size": 256,
    "model.dropout": 0.0,
}


def test_killed_and_resumed_it_goes_on_alike(tmp_path: Path) -> None:
    data = trial.write_data(tmp_path / "data")
    whole = trial.train(trial.configure(tmp_path / "whole", data, CHANGES), processes=1)
    file = trial.configure(tmp_path / "killed", data, CHANGES)
    with trial.Job(file, processes=1) as job:
        job.until(lambda: len(trial.checkpoints(job.run)) > 1)
        job.kill()
    killed = trial.train(file, processes=1)
    assert len(trial.resumed_at(killed)) == 1
    expected, found = trial.losses(whole), trial.losses(killed)
    assert set(found) == set(expected) == set(range(1, trial.STEPS + 1))
    for step, loss in expected.items():
        # Attention's backward pass adds up in any order on a GPU.
        assert math.isclose(found[step], loss, rel_tol=2e-2), step
    (run,) = [record for record in trial.records(whole) if record["event"] == "run"]
    assert run["device"] != "CPU"
