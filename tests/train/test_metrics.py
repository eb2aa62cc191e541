"""The metrics file: what is written, and that a kill costs no more than the torn line."""

from __future__ import annotations

import json
import logging
import math
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.errors import ConfigError, TrainingError
from megagrow.train.metrics import (
    COMMON_KEYS,
    REQUIRED_KEYS,
    MetricsWriter,
    repair_tail,
    scalars,
)

STEP: dict[str, Any] = {
    "loss": 3.5,
    "lr": 1e-3,
    "grad_norm": 0.9,
    "layers": 4,
    "tokens_per_second": 1000.0,
    "tflops_per_device": 0.1,
    "mfu": None,
    "mixture": {"easy": 0.75, "hard": 0.25},
    "samples": {"easy": 3, "hard": 1},
}


def write_step(writer: MetricsWriter, step: int, **changes: Any) -> None:
    common: dict[str, Any] = {
        "step": step,
        "stage": "small",
        "tokens": 100 * step,
        "flops": 1e6 * step,
    }
    writer.write("step", **(common | STEP | changes))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_line_is_on_disk_before_write_returns_and_has_the_common_keys(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_step(writer, 1)
        (record,) = records(tmp_path)
    assert set(record) == set(COMMON_KEYS) | set(REQUIRED_KEYS["step"])
    assert record["mixture"] == {"easy": 0.75, "hard": 0.25}
    assert record["mfu"] is None
    assert record["time"] > 1.7e9


def test_given_time_is_kept(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_step(writer, 1, time=12.5)
    assert records(tmp_path)[0]["time"] == 12.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_stay_valid_json_and_come_back(
    tmp_path: Path, value: float
) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_step(writer, 1, loss=value)

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    line = (tmp_path / "metrics.jsonl").read_text()
    back = float(json.loads(line, parse_constant=refuse)["loss"])
    assert math.isnan(back) if math.isnan(value) else back == value


def test_tensors_arrays_paths_and_enums_have_a_json_form(tmp_path: Path) -> None:
    class Policy(str, Enum):
        RESET = "reset"

    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_step(
            writer,
            1,
            loss=torch.tensor(2.5),
            grad_norm=np.float32(0.5),
            layers=np.int64(4),
            extra=[Path("a/b"), Policy.RESET, np.arange(2)],
        )
    (record,) = records(tmp_path)
    assert (record["loss"], record["grad_norm"], record["layers"]) == (2.5, 0.5, 4)
    assert record["extra"] == ["a/b", "reset", [0, 1]]


def test_value_without_json_form_is_named(tmp_path: Path) -> None:
    with (
        MetricsWriter(tmp_path, tensorboard=False) as writer,
        pytest.raises(TypeError, match=r"mixture\.easy.*object"),
    ):
        write_step(writer, 1, mixture={"easy": object()})


@pytest.mark.parametrize("enabled", [True, False])
def test_missing_key_is_named_on_every_rank(tmp_path: Path, enabled: bool) -> None:
    with (
        MetricsWriter(tmp_path, tensorboard=False, enabled=enabled) as writer,
        pytest.raises(KeyError, match="'eval' lacks losses"),
    ):
        writer.write("eval", step=1, stage="a", tokens=1, flops=1.0, loss=2.0)


def test_unknown_event_is_refused(tmp_path: Path) -> None:
    with (
        MetricsWriter(tmp_path, tensorboard=False) as writer,
        pytest.raises(KeyError, match="unknown metrics event 'grow'"),
    ):
        writer.write("grow", step=1, stage="a", tokens=1, flops=1.0)  # type: ignore[arg-type]


def test_disabled_writer_leaves_no_trace(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "run", enabled=False) as writer:
        write_step(writer, 1)
    assert not (tmp_path / "run").exists()


def test_torn_line_is_cut_and_nothing_else_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        write_step(writer, 1)
        write_step(writer, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with (
        caplog.at_level(logging.INFO),
        MetricsWriter(tmp_path, tensorboard=False) as writer,
    ):
        write_step(writer, 2)
    assert [record["step"] for record in records(tmp_path)] == [1, 2]
    assert "torn" in caplog.text


@settings(deadline=None)  # a busy machine is no failure
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=5),
    tail=st.binary(max_size=200).map(lambda b: b.replace(b"\n", b"")),
    stretch=st.sampled_from([1, 2000]),
)
def test_repair_keeps_exactly_the_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: bytes, stretch: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "metrics.jsonl"
    whole = b"".join(line + b"\n" for line in lines)
    path.write_bytes(whole + tail * stretch)
    assert repair_tail(path) == len(tail) * stretch
    assert path.read_bytes() == whole


def test_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write metrics to .*metrics\.jsonl"):
        MetricsWriter(tmp_path / "file", tensorboard=False)


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = MetricsWriter(tmp_path, tensorboard=False)
    with pytest.raises(TrainingError, match="No space left"):
        write_step(writer, 1)
    writer.close()


def test_scalars_name_buckets_and_leave_out_what_is_missing() -> None:
    found = scalars({"event": "step", "step": 1, "tokens": 5, "flops": 2.0, "time": 0.0} | STEP)
    assert found["train/loss"] == 3.5
    assert found["mixture/easy"] == 0.75
    assert found["train/tokens"] == 5
    assert not {"train/mfu", "train/time", "train/step"} & set(found)
    found = scalars({"event": "eval", "step": 1, "losses": {"hard": "NaN"}, "loss": 2.0})
    assert math.isnan(found["eval/hard"])
    assert scalars({"event": "run", "step": 0, "world_size": 2}) == {}


def read_tensorboard(folder: Path, tag: str) -> list[tuple[int, float]]:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loading.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_hides_the_steps_a_resume_runs_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            write_step(writer, step, loss=1.0)
    with MetricsWriter(tmp_path) as writer:
        writer.write("resume", step=2, stage="small", tokens=200, flops=2e6, path="step_2")
        write_step(writer, 3, loss=2.0)
    assert read_tensorboard(tmp_path, "train/loss") == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_without_tensorboard_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.INFO), MetricsWriter(tmp_path) as writer:
        write_step(writer, 1)
    assert [record.message for record in caplog.records] == [
        "TensorBoard is not installed, so no event files; pip install tensorboard"
    ]
    assert len(records(tmp_path)) == 1


def test_wandb_asked_for_and_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        MetricsWriter(tmp_path, tensorboard=False, wandb_project="growth")


def test_wandb_offline_run_is_left_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with MetricsWriter(tmp_path, tensorboard=False, wandb_project="growth") as writer:
        write_step(writer, 5)
        write_step(writer, 4)  # a resume goes back: W&B's own step would refuse
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
