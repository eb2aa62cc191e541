from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.quantity import parse_bytes, parse_duration, parse_tokens
from megagrow.errors import ConfigError

FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (0, 0),
        (500_000, 500_000),
        ("20M", 20_000_000),
        ("2.5B", 2_500_000_000),
        ("2.5 b", 2_500_000_000),
        ("1_000k", 1_000_000),
        (".5K", 500),
        ("1e9", 10**9),
        (1e9, 10**9),
        ("1.5T", 1_500_000_000_000),
    ],
)
def test_parse_tokens(value: object, tokens: int) -> None:
    assert parse_tokens(value) == tokens


@pytest.mark.parametrize(
    "value",
    [True, None, [], "", "M", "20MB", "-5", -5, 0.5, "1.5", "2.0001K", "nan", "inf", "1e19",
     "1e999999999", "20 M tokens", float("inf"), float("nan"), 2**63],
)  # fmt: skip
def test_parse_tokens_refuses(value: object) -> None:
    with pytest.raises(ConfigError, match="tokens") as error:
        parse_tokens(value)
    assert repr(value) in str(error.value)
    assert "write" in str(error.value)


@given(st.integers(0, 9_000_000), st.sampled_from(list(FACTORS)), st.booleans())
def test_suffix_multiplies_exactly(number: int, suffix: str, lower: bool) -> None:
    text = f"{number}{suffix.lower() if lower else suffix}"
    assert parse_tokens(text) == number * FACTORS[suffix]


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from(["K", "M", "B", "T"]))
def test_decimals_are_exact(whole: int, thousandths: int, suffix: str) -> None:
    factor = FACTORS[suffix] // 1000
    assert (
        parse_tokens(f"{whole}.{thousandths:03d}{suffix}") == (whole * 1000 + thousandths) * factor
    )


@given(st.integers(0, 30), st.integers(0, 47), st.integers(0, 99), st.integers(0, 99))
def test_duration_adds_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    if total:
        assert parse_duration(text) == total
        assert parse_duration(total) == total
    else:
        with pytest.raises(ConfigError):
            parse_duration(text)


@pytest.mark.parametrize(
    ("value", "seconds"), [("3h50m", 13800), ("90s", 90), (1.5, 1.5), ("2D", 172800)]
)
def test_duration(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "h", "3h 50m", "50m3h", "1.5h", True, 0, -1, float("inf"), float("nan"), None, []]
)
def test_duration_refuses(value: object) -> None:
    with pytest.raises(ConfigError, match="is not a duration: write seconds"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (5, 5), ("7", 7), ("1B", 1), ("75GB", 75 * 10**9), ("256MiB", 2**28),
        ("1.5 gib", 3 * 2**29), ("1_000KB", 10**6), (".5KiB", 512), ("2TiB", 2**41), (12.0, 12),
    ],
)  # fmt: skip
def test_bytes(value: object, size: int) -> None:
    assert parse_bytes(value) == size


@pytest.mark.parametrize(
    "value", ["", "GB", "5GBit", "5 M", "-5", -5, 0.5, "1.0001KB", True, None, [], "9000000TiB"]
)
def test_bytes_refuses(value: object) -> None:
    with pytest.raises(ConfigError, match="bytes: write a whole number") as error:
        parse_bytes(value)
    assert repr(value) in str(error.value)
