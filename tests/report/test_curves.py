"""Loss curves against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.report.curves import (
    LossCurve,
    evaluation_curve,
    flops_at_loss,
    loss_at_flops,
    smooth,
    speedup,
    training_curve,
)
from megagrow.report.records import EvalRecord, FloatArray, Steps


def power_law(flops: FloatArray, *, work: float = 1.0, floor: float = 2.0) -> LossCurve:
    """Loss `floor + 5 (C / work)^-0.3`: twice the `work` takes twice the FLOPs to every loss."""
    return LossCurve(tokens=flops, flops=flops, loss=floor + 5.0 * (flops / work) ** -0.3)


def steps_of(
    loss: FloatArray, *, tokens: FloatArray | None = None, layers: FloatArray | None = None
) -> Steps:
    count = len(loss)
    tokens = np.arange(1.0, count + 1) if tokens is None else tokens
    nothing = np.full(count, np.nan)
    return Steps(
        step=np.arange(1.0, count + 1),
        stage=("s",) * count,
        tokens=tokens,
        flops=tokens * 10,
        loss=loss,
        lr=nothing,
        grad_norm=nothing,
        layers=np.full(count, 2.0) if layers is None else layers,
        tokens_per_second=nothing,
        tflops_per_device=nothing,
        mfu=nothing,
        mixture={},
        samples={},
    )


@pytest.mark.parametrize("work", [1.546, 1.0, 0.8])
@pytest.mark.parametrize("count", [40, 3000])
def test_speedup_of_power_laws_is_their_ratio_everywhere(work: float, count: int) -> None:
    """1.546 is the G_stack paper's 300B / 194B tokens, a speedup of 54.6%."""
    scratch = power_law(np.geomspace(1.0, 1000.0, count), work=work)
    result = speedup(power_law(np.geomspace(1.0, 2000.0, count)), scratch)
    exact = 1e-2 if count < 100 else 1e-4
    assert result.at_final == pytest.approx(work - 1, abs=exact)
    assert result.speedup == pytest.approx(work - 1, abs=exact)
    assert result.final_loss == pytest.approx(2 + 5 * (1000 / work) ** -0.3)
    assert result.reason is None
    assert result.scratch_flops[0] == pytest.approx(100, rel=0.05)
    assert result.scratch_flops[-1] == pytest.approx(1000)
    assert np.all(np.diff(result.loss) < 0)


def test_noise_and_smoothing_leave_the_speedup() -> None:
    random = np.random.default_rng(0)
    tokens = np.arange(1.0, 4001.0)

    def noisy(work: float) -> LossCurve:
        clean = 2 + 5 * (tokens * 10 / work) ** -0.3
        return training_curve(steps_of(clean + random.normal(0, 0.03, 4000)), scale=80.0)

    result = speedup(noisy(1.0), noisy(1.5))
    assert result.at_final == pytest.approx(0.5, abs=0.08)
    assert result.speedup.mean() == pytest.approx(0.5, abs=0.05)


def test_no_speedup_where_the_loss_was_never_reached() -> None:
    flops = np.geomspace(1, 1000, 300)
    result = speedup(power_law(flops, floor=2.4), power_law(flops))
    assert result.at_final is None
    assert result.grown_final_flops is None
    assert result.reason is not None
    assert "never got down to the baseline's final loss of 2.62" in result.reason
    assert len(result.speedup) > 10  # the losses that both had are still compared
    assert result.equal_compute is not None
    assert result.equal_compute.grown - result.equal_compute.scratch == pytest.approx(0.4)


def test_curves_that_do_not_overlap() -> None:
    flops = np.geomspace(1, 1000, 50)
    result = speedup(power_law(flops, floor=20), power_law(flops))
    assert len(result.speedup) == 0
    assert result.at_final is None


def test_run_without_losses() -> None:
    nothing = np.empty(0)
    empty = LossCurve(tokens=nothing, flops=nothing, loss=nothing)
    curve = power_law(np.geomspace(1, 10, 5))
    assert speedup(empty, curve).reason == "the grown run has no loss to compare"
    assert speedup(curve, empty).reason == "the baseline run has no loss to compare"


def test_single_points() -> None:
    one = power_law(np.array([8.0]))
    assert speedup(one, one).at_final == pytest.approx(0.0)


def test_losses_before_the_grown_runs_first_are_not_compared() -> None:
    """A curve that begins late (the first evaluation) says nothing about higher losses."""
    late = power_law(np.geomspace(500, 2000, 50))
    result = speedup(late, power_law(np.geomspace(1, 1000, 200)))
    assert result.loss.max() <= late.loss[0]
    assert result.speedup == pytest.approx(0.0, abs=1e-3)


def test_first_reach_is_interpolated_in_log_flops_and_ignores_later_spikes() -> None:
    curve = LossCurve(
        tokens=np.arange(4.0),
        flops=np.array([1.0, 100.0, 200.0, 300.0]),
        loss=np.array([4.0, 3.0, 3.8, 2.0]),
    )
    assert flops_at_loss(curve, 3.5) == pytest.approx(10.0)
    assert flops_at_loss(curve, 3.0) == pytest.approx(100.0)
    assert flops_at_loss(curve, 2.9) == pytest.approx(200.0 * 1.5 ** (0.9 / 1.8))
    assert flops_at_loss(curve, 5.0) == 1.0
    assert flops_at_loss(curve, 1.9) is None
    assert loss_at_flops(curve, 150.0) == pytest.approx(3.4)
    assert loss_at_flops(curve, 0.5) is None


def test_interpolation_from_zero_flops_is_linear() -> None:
    curve = LossCurve(tokens=np.arange(2.0), flops=np.array([0.0, 10.0]), loss=np.array([4.0, 2.0]))
    assert flops_at_loss(curve, 3.0) == pytest.approx(5.0)


@settings(deadline=None)  # a busy machine is no failure
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40),
    scale=st.floats(0.0, 100.0),
)
def test_smoothing_stays_within_the_values(values: list[float], scale: float) -> None:
    array = np.array(values)
    result = smooth(array, np.arange(1.0, len(values) + 1), scale=scale)
    assert np.all(result >= array.min() - 1e-6)
    assert np.all(result <= array.max() + 1e-6)
    assert result.shape == array.shape


def test_smoothing_keeps_a_straight_line_straight_and_quiets_noise() -> None:
    positions = np.arange(1.0, 1001.0)
    line = 5.0 - positions / 500
    inner = slice(100, 900)
    assert smooth(line, positions, scale=10.0)[inner] == pytest.approx(line[inner], abs=2e-3)
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    assert smooth(noise, positions, scale=10.0)[inner].std() < 0.35
    assert np.array_equal(smooth(noise, positions, scale=0.0), noise)


def test_smoothing_is_the_same_at_any_batch_size() -> None:
    fine, coarse = np.arange(1.0, 1001.0), np.arange(4.0, 1001.0, 4.0)
    a = smooth(2 + 50 / (10 + fine), fine, scale=40.0)
    b = smooth(2 + 50 / (10 + coarse), coarse, scale=40.0)
    assert np.interp(coarse[20:-20], fine, a) == pytest.approx(b[20:-20], abs=5e-3)


def test_growth_stays_a_jump_and_nan_losses_are_left_out() -> None:
    loss = np.array([3.0] * 20 + [5.0] * 20)
    loss[7] = np.nan
    curve = training_curve(steps_of(loss, layers=np.repeat([2.0, 4.0], 20)), scale=10.0)
    assert curve.loss == pytest.approx(np.array([3.0] * 19 + [5.0] * 20))
    assert len(curve.tokens) == 39


def test_evaluation_curve_is_the_plain_mean_of_the_shared_buckets() -> None:
    records = [
        EvalRecord(step=s, stage="a", tokens=s, flops=s, losses=losses, loss=9.0)
        for s, losses in [(1, {"x": 1.0, "y": 3.0}), (2, {"x": 1.0}), (3, {"x": 2.0, "y": 2.0})]
    ]
    assert evaluation_curve(records, ("x", "y")).loss.tolist() == [2.0, 2.0]
    assert evaluation_curve(records, ("x",)).loss.tolist() == [1.0, 1.0, 2.0]
    assert evaluation_curve(records, ()).loss.tolist() == [9.0, 9.0, 9.0]
