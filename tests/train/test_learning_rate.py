"""The learning rate at every point of a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.schema import (
    BatchConfig,
    LearningRateConfig,
    ModelConfig,
    ParallelConfig,
    StageConfig,
    TransitionConfig,
)
from megagrow.train.learning_rate import Schedule, learning_rates

PEAK = 1e-3


def schedule(horizon: int = 1000, start: int = 0, **keys: Any) -> Schedule:
    config = LearningRateConfig(peak=PEAK, minimum=1e-4, **keys)
    return Schedule(config=config, start=start, horizon=horizon)


def row(policy: str | None, **rate: Any) -> StageConfig:
    """A stage; `policy` is its learning-rate transition, None for the first."""
    transition = None
    if policy is not None:
        transition = TransitionConfig(
            operator="none",
            optimizer="copy",
            learning_rate=policy,  # type: ignore[arg-type]
        )
    return StageConfig(
        name="stage",
        layers=2,
        tokens=100,
        mixture={"easy": 1.0},
        transition=transition,
        model=ModelConfig(hidden_size=8, num_attention_heads=1, vocab_size=8, seq_length=8),
        parallel=ParallelConfig(),
        batch=BatchConfig(global_size=1, micro_size=1),
        learning_rate=LearningRateConfig(**{"peak": PEAK, "minimum": 1e-4, **rate}),
    )


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_warmup_is_linear_from_zero(decay: Any) -> None:
    rates = schedule(decay=decay, warmup=100)
    assert rates.at(0) == 0.0
    assert rates.at(1) == pytest.approx(PEAK / 100)
    assert rates.at(50) == pytest.approx(PEAK / 2)
    assert rates.at(99) == pytest.approx(0.99 * PEAK)
    assert rates.at(100) == PEAK


def test_without_warmup_it_begins_at_the_peak() -> None:
    assert schedule(decay="cosine").at(0) == PEAK


def test_cosine() -> None:
    rates = schedule(decay="cosine", warmup=100)
    assert rates.at(101) < PEAK
    assert rates.at(325) == pytest.approx(1e-4 + 9e-4 * (2 + math.sqrt(2)) / 4)
    assert rates.at(550) == pytest.approx((PEAK + 1e-4) / 2)
    assert rates.at(999) > rates.at(1000) == rates.at(1001) == rates.at(10**9) == 1e-4


def test_linear() -> None:
    rates = schedule(decay="linear", warmup=100)
    assert rates.at(101) == pytest.approx(PEAK - 9e-4 / 900)
    assert rates.at(400) == pytest.approx(PEAK - 9e-4 / 3)
    assert rates.at(999) == pytest.approx(1e-4 + 9e-4 / 900)
    assert rates.at(1000) == rates.at(1001) == 1e-4


def test_constant_never_falls() -> None:
    rates = schedule(decay="constant", warmup=100)
    assert rates.at(101) == rates.at(999) == rates.at(1000) == rates.at(10**9) == PEAK


def test_wsd_stays_then_falls_linearly() -> None:
    rates = schedule(decay="wsd", warmup=100, decay_tokens=200)
    assert rates.at(100) == rates.at(799) == rates.at(800) == PEAK
    assert rates.at(801) == pytest.approx(PEAK - 9e-4 / 200)
    assert rates.at(900) == pytest.approx((PEAK + 1e-4) / 2)
    assert rates.at(999) == pytest.approx(1e-4 + 9e-4 / 200)
    assert rates.at(1000) == rates.at(1001) == 1e-4


def test_wsd_whose_fall_is_longer_than_the_run_begins_after_warmup() -> None:
    rates = schedule(decay="wsd", warmup=100, decay_tokens=5000)
    assert rates.at(100) == PEAK
    assert rates.at(550) == pytest.approx((PEAK + 1e-4) / 2)
    assert rates.at(1000) == 1e-4


def test_minimum_is_a_tenth_unless_set() -> None:
    config = LearningRateConfig(peak=PEAK)
    assert Schedule(config=config, start=0, horizon=10).at(10) == pytest.approx(PEAK / 10)
    config = LearningRateConfig(peak=PEAK, minimum=0.0)
    assert Schedule(config=config, start=0, horizon=10).at(10) == 0.0


def test_a_step_has_the_rate_of_its_middle() -> None:
    rates = learning_rates([row(None, warmup=100, decay="linear")], [1000])
    assert rates.at(0, 0, 20) == pytest.approx(0.1 * PEAK)  # not 0: the first step does train
    assert rates.at(0, 80, 20) == pytest.approx(0.9 * PEAK)
    assert rates.at(0, 980, 20) == pytest.approx(1e-4 + 9e-4 / 90)


def test_restart_begins_again_at_the_boundary() -> None:
    stages = [row(None, warmup=10), row("restart", peak=2e-3, warmup=20)]
    rates = learning_rates(stages, [100, 300])
    first, second = rates.schedules
    assert (first.start, first.horizon) == (0, 100)
    assert (second.start, second.horizon) == (100, 300)
    assert first.at(99) > first.at(100) == 1e-4
    assert second.at(100) == 0.0
    assert second.at(110) == pytest.approx(1e-3)
    assert second.at(120) == 2e-3
    assert second.at(399) > second.at(400) == 1e-4


def test_continue_goes_on_to_the_end_of_the_last_stage() -> None:
    stages = [row(None, warmup=10), row("continue", warmup=10), row("continue", warmup=10)]
    rates = learning_rates(stages, [100, 300, 600])
    whole = Schedule(config=stages[0].learning_rate, start=0, horizon=1000)
    assert rates.schedules == (whole,) * 3
    for boundary in (100, 400):  # nothing to see from either side
        assert rates.schedules[0].at(boundary) == rates.schedules[1].at(boundary)
    assert rates.at(2, 995, 10) == 1e-4


def test_joins_of_both_kinds() -> None:
    stages = [row(None), row("continue"), row("restart"), row("continue"), row("restart")]
    rates = learning_rates(stages, [10, 20, 30, 40, 50])
    places = [(each.start, each.horizon) for each in rates.schedules]
    assert places == [(0, 30), (0, 30), (30, 70), (30, 70), (100, 50)]


def test_a_horizon_of_its_own_outlasts_or_ends_before_the_stages() -> None:
    for horizon in (50, 5000):
        rates = learning_rates([row(None, horizon=horizon), row("restart")], [100, 100])
        assert [each.horizon for each in rates.schedules] == [horizon, 100]
    short = learning_rates([row(None, horizon=50)], [100]).schedules[0]
    assert short.at(49) > short.at(50) == short.at(99) == 1e-4


@st.composite
def shapes(draw: st.DrawFn) -> Schedule:
    horizon = draw(st.integers(1, 10**6))
    peak = draw(st.floats(1e-6, 1.0))
    config = LearningRateConfig(
        peak=peak,
        minimum=draw(st.one_of(st.none(), st.floats(0.0, peak))),
        warmup=draw(st.integers(0, horizon - 1)),
        decay=draw(st.sampled_from(["cosine", "linear", "constant", "wsd"])),
        decay_tokens=draw(st.integers(1, 2 * 10**6)),
    )
    return Schedule(config=config, start=draw(st.integers(0, 10**6)), horizon=horizon)


@given(shapes(), st.integers(0, 3 * 10**6))
def test_rate_lies_between_zero_and_the_peak(shape: Schedule, position: int) -> None:
    rate = shape.at(shape.start + position)
    assert 0.0 <= rate <= shape.config.peak * (1 + 1e-12)
    if position >= shape.config.warmup and shape.config.minimum is not None:
        assert rate >= shape.config.minimum * (1 - 1e-12)


@given(shapes(), st.integers(0, 3 * 10**6))
def test_rate_is_continuous(shape: Schedule, position: int) -> None:
    """One token moves it no further than the steepest part of the schedule does."""
    config = shape.config
    fall = shape.horizon - config.warmup
    if config.decay == "wsd":
        fall = min(fall, config.decay_tokens)
    steepest = max(1 / max(config.warmup, 1), math.pi / 2 / fall)
    step = abs(shape.at(shape.start + position + 1) - shape.at(shape.start + position))
    if config.warmup > 0 or position > 0:
        assert step <= config.peak * steepest * (1 + 1e-6)


@given(shapes(), st.integers(0, 10**6))
def test_only_the_place_in_the_schedule_counts(shape: Schedule, position: int) -> None:
    moved = Schedule(config=shape.config, start=0, horizon=shape.horizon)
    assert moved.at(position) == shape.at(shape.start + position)


@given(
    st.sampled_from(["constant", "wsd"]),
    st.integers(1, 512),
    st.integers(1, 512),
    st.integers(1000, 8000),
)
def test_the_constant_part_does_not_depend_on_the_step_size(
    decay: str, step: int, other: int, tokens: int
) -> None:
    rates = learning_rates([row(None, warmup=1000, decay=decay, decay_tokens=1000)], [10_000])
    assert rates.at(0, tokens, step) == rates.at(0, tokens, other) == PEAK


@given(st.integers(1, 64), st.sampled_from(["cosine", "linear", "wsd"]))
def test_steps_of_any_size_sum_to_the_same_area(step: int, decay: str) -> None:
    """Middles of steps: halving the batch changes the run's total rate by next to nothing."""
    tokens = 64 * 100
    rates = learning_rates([row(None, warmup=640, decay=decay, decay_tokens=640)], [tokens])
    area = sum(rates.at(0, at, step) * step for at in range(0, tokens - step + 1, step))
    exact = sum(rates.at(0, at, 1) for at in range(tokens - tokens % step))
    assert area == pytest.approx(exact, rel=2e-3)
