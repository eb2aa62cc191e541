from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.growth.timing import TIMING_SHARE, timing


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
