"""Numbers as text, and the integer arithmetic of error messages."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.quantity import parse_tokens
from megagrow.units import (
    format_bytes,
    format_count,
    format_duration,
    format_flops,
    nearest_divisor,
    nearest_multiple,
)

PACKAGE = Path(__file__).parents[1] / "megagrow"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (512, "512"),
        (999.4, "999"),
        (999.6, "1K"),
        (1500, "1.5K"),
        (20_000_000, "20M"),
        (999_600, "1M"),
        (2_500_000_000, "2.5B"),
        (1.25e12, "1.25T"),
        (999_999_999, "1B"),
        (1_234_567, "1.23M"),
        (3e15, "3000T"),
    ],
)
def test_counts(count: float, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (0.0, "0 FLOP"),
        (3.4e15, "3.4 PFLOP"),
        (1.2e18, "1.2 EFLOP"),
        (4.8e10, "48 GFLOP"),
        (1.26e21, "1.26e21 FLOP"),
        (math.nan, "nan FLOP"),
    ],
)
def test_flops(flops: float, text: str) -> None:
    assert format_flops(flops) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.42s"),
        (5.25, "5.2s"),
        (9.96, "10s"),
        (59.6, "1m 00s"),
        (249, "4m 09s"),
        (3599.7, "1h 00m"),
        (3780, "1h 03m"),
        (86_399, "1d 00h"),
        (187_200, "2d 04h"),
        (math.inf, "?"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**16))
def test_a_count_can_be_read_back(tokens: int) -> None:
    text = format_count(tokens)
    assert abs(parse_tokens(text) - tokens) <= 0.005 * tokens
    assert len(text) <= 6 or tokens >= 10**15


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (1536, "1.5 KiB"), (3 * 2**30, "3 GiB"),
     (2**41, "2 TiB"), (3000 * 2**40, "3000 TiB"), (math.nan, "?")],
)  # fmt: skip
def test_bytes(size: float, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(1, 500), st.integers(1, 500))
def test_nearest_divisor(number: int, wanted: int) -> None:
    found = nearest_divisor(number, wanted)
    assert number % found == 0
    closer = range(wanted - abs(found - wanted) + 1, wanted + abs(found - wanted))
    assert not [other for other in closer if other > 0 and number % other == 0]


@given(st.integers(1, 100), st.integers(1, 500))
def test_nearest_multiple(number: int, wanted: int) -> None:
    found = nearest_multiple(number, wanted)
    assert found % number == 0
    assert found >= number
    assert abs(found - wanted) <= number // 2 or found == number


def _imports(room: str) -> set[str]:
    """Modules of this package that the files of a room import, wherever they do."""
    trees = [ast.parse(file.read_text()) for file in (PACKAGE / room).glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_rooms_do_not_take_formats_and_arithmetic_from_each_other() -> None:
    assert "megagrow.train.progress" not in _imports("report")
    for room in ("growth", "plan"):
        assert "megagrow.config.checks" not in _imports(room)
