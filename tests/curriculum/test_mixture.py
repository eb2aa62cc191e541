from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.schema import StageConfig
from megagrow.curriculum import epochs, expected_samples, ramps, weights_at
from megagrow.errors import DataError
from tests.curriculum.stages import stage, stages

RAMP = stage({"easy": 0.8, "hard": 0.2}, {"easy": 0.2, "hard": 0.3, "web": 0.5})


def test_weights_move_linearly() -> None:
    assert weights_at(RAMP, 0.0) == pytest.approx({"easy": 0.8, "hard": 0.2, "web": 0.0})
    assert weights_at(RAMP, 0.5) == pytest.approx({"easy": 0.5, "hard": 0.25, "web": 0.25})
    assert weights_at(RAMP, 1.0) == pytest.approx({"easy": 0.2, "hard": 0.3, "web": 0.5})


def test_weights_stay_without_an_end() -> None:
    fixed = stage({"a": 0.25, "b": 0.75, "never": 0.0})
    assert weights_at(fixed, 0.0) == weights_at(fixed, 1.0) == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_out_of_range(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        weights_at(RAMP, progress)


@given(stages(), st.floats(0.0, 1.0))
def test_weights_sum_to_one(any_stage: StageConfig, progress: float) -> None:
    weights = weights_at(any_stage, progress)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert all(weight >= 0.0 for weight in weights.values())
    assert list(weights) == sorted(weights)


@given(stages(), st.integers(1, 500), st.data())
def test_due_is_the_sum_of_the_weights_so_far(
    any_stage: StageConfig, samples: int, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, samples))
    for name, ramp in ramps(any_stage, samples).items():
        # The weight half way through each sample: exact for a linear ramp.
        total = sum(weights_at(any_stage, (k + 0.5) / samples)[name] for k in range(position))
        assert ramp.due(position) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("weights", [{"a": -0.5, "b": 1.5}, {"a": 0.0, "b": 0.0}, {}])
def test_impossible_weights(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weights of stage"):
        ramps(stage(weights), 10)


def test_a_stage_has_samples() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        ramps(RAMP, 0)


def test_expected_samples_and_epochs_of_a_run() -> None:
    plan = [(RAMP, 100), (stage({"hard": 1.0}), 50)]
    assert expected_samples(plan) == pytest.approx({"easy": 50.0, "hard": 75.0, "web": 25.0})
    lengths = {"easy": 100, "hard": 30, "web": 25, "unused": 0}
    assert epochs(plan, lengths) == pytest.approx({"easy": 0.5, "hard": 2.5, "web": 1.0})


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"easy": 1, "hard": 1, "web": 0}, "'some stage' draws from bucket 'web', which is empty"),
        ({"easy": 1, "web": 1}, "bucket 'hard', which does not exist"),
    ],
)
def test_epochs_refuses_a_bucket_without_samples(lengths: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        epochs([(stage({"easy": 1.0}), 5), (RAMP, 100)], lengths)


def test_the_room_imports_neither_torch_nor_megatron() -> None:
    code = (
        "import sys, megagrow.curriculum\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'megatron')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
