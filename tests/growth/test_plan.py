from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.errors import ConfigError
from megagrow.growth.plan import (
    TIMING_SHARE,
    GrowthPlan,
    copy_plan,
    plan_growth,
    stack,
    timing,
)


def test_stack_of_the_paper() -> None:
    plan = stack(6, 24)
    assert plan.layer_map == (0, 1, 2, 3, 4, 5) * 4
    assert (plan.operator, plan.old_layers, plan.new_layers) == ("stack", 6, 24)
    assert plan.sources[7] == ((1, 1.0),)


@given(st.integers(1, 40), st.integers(1, 8))
def test_stack_is_the_old_model_g_times(old: int, factor: int) -> None:
    plan = plan_growth("stack", old, old * factor)
    assert plan.is_copy
    assert plan.layer_map == tuple(range(old)) * factor
    assert all(sum(weight for _, weight in pairs) == 1.0 for pairs in plan.sources)


@given(st.integers(1, 40))
def test_none_keeps_every_layer(layers: int) -> None:
    plan = plan_growth("none", layers, layers)
    assert plan.layer_map == tuple(range(layers))


def test_mixed_sources_have_no_layer_map() -> None:
    plan = GrowthPlan(operator="average", old_layers=2, sources=(((0, 0.5), (1, 0.5)),))
    assert not plan.is_copy
    with pytest.raises(ValueError, match="average mixes layers"):
        _ = plan.layer_map
    scaled = GrowthPlan(operator="scaled", old_layers=1, sources=(((0, 0.5),),))
    assert not scaled.is_copy


@pytest.mark.parametrize(
    ("operator", "old", "new", "message"),
    [
        ("stack", 4, 6, "6 layers are no multiple of 4; nearest: 4"),
        ("stack", 4, 7, "7 layers are no multiple of 4; nearest: 8"),
        ("stack", 4, 2, "2 layers are no multiple of 4; nearest: 4"),
        ("none", 4, 8, "4 -> 8 layers need a growth operator such as stack"),
        ("stak", 4, 8, "no growth operator 'stak'; one of: none, stack"),
    ],
)
def test_refuses(operator: str, old: int, new: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_growth(operator, old, new)
    assert message in str(error.value)


def test_refuses_layers_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"no old layers \[-1, 2\] among 2"):
        copy_plan("pattern", 2, [0, 2, -1, 1])


@pytest.mark.parametrize(
    ("parameters", "tokens", "billions"),
    [(8e9, 15e12, 6.58), (13e9, 2e12, 15.84), (410e6, 100e9, 7.0), (1.1e9, 100e9, 11.4),
     (3e9, 300e9, 13.0), (7e9, 300e9, 20.5), (1.2e9, 20e9, 22.3), (124e6, 2.5e9, 20.8)],
)  # fmt: skip
def test_timing_formula(parameters: float, tokens: float, billions: float) -> None:
    digits = 2 if parameters > 7e9 else 1
    assert round(timing(parameters, tokens).tokens / 1e9, digits) == billions


@pytest.mark.parametrize(("parameters", "tokens"), [(410e6, 100e9), (1.1e9, 100e9), (3e9, 60e9)])
def test_timing_is_trusted_where_it_was_fitted(parameters: float, tokens: float) -> None:
    advice = timing(parameters, tokens)
    if parameters < 2e9:
        assert not advice.warnings
        assert advice.recommended == advice.tokens
    else:  # inside the fit's sizes and compute, and yet over a seventh of the tokens
        assert advice.warnings[0].startswith("it gives")


def test_timing_is_clamped_where_it_asks_for_more_than_there_is() -> None:
    advice = timing(124e6, 2.5e9)
    assert advice.recommended == TIMING_SHARE * 2.5e9
    assert [warning.split(",")[0] for warning in advice.warnings] == [
        "1.2e+08 non-embedding parameters",
        "1.9e+18 FLOPs",
        "it gives 2.08e+10 tokens",
    ]
    assert "more than the whole budget" in advice.warnings[2]


@given(st.floats(1, 1e13), st.floats(2, 1e15))
def test_timing_always_recommends_a_part_of_the_budget(parameters: float, tokens: float) -> None:
    advice = timing(parameters, tokens)
    assert 0 < advice.recommended <= TIMING_SHARE * tokens
    assert math.isfinite(advice.tokens)


@pytest.mark.parametrize(("parameters", "tokens"), [(0, 1e9), (1e9, 0), (-1, -1e9), (1, 1)])
def test_timing_refuses(parameters: float, tokens: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        timing(parameters, tokens)
