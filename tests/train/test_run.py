"""What a run keeps to itself: its scratch folder, and its own folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megagrow.config import load
from megagrow.train import run
from tests.train import trial


def test_runs_of_one_name_that_write_elsewhere_share_no_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = trial.configure(tmp_path, tmp_path, {"name": "same"})

    def scratch(output: str) -> Path:
        overrides = [f"output={output}", f"checkpoint.growth_scratch={tmp_path / 'scratch'}"]
        return run.scratch_of(load(str(file), overrides))

    assert scratch("one").parent == tmp_path / "scratch"
    assert scratch("one").name.startswith("megagrow-same-")
    assert scratch("one") != scratch("two")
    assert scratch("one") == scratch(str(tmp_path / "one")) == scratch("two/../one")


def test_without_a_scratch_folder_of_its_own_a_run_grows_through_its_folder(tmp_path: Path) -> None:
    config = load(str(trial.configure(tmp_path, tmp_path)), [])
    assert run.scratch_of(config) == tmp_path / "run"


def test_the_status_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    run.write_status(tmp_path, "running")
    assert len(synced) == 2  # the file, and its folder
    assert trial.status(tmp_path)["state"] == "running"
