"""Quantities people write in a configuration: tokens (`20M`), durations (`90s`), bytes (`75GB`)."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

from megagrow.errors import ConfigError

_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_LARGEST = 2**63 - 1  # more is a typing error, and would not fit the counters that store it
_TOKENS = re.compile(r"^([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([KMBT]?)$", re.IGNORECASE)
_BYTE_FACTORS = {
    "": 1,
    "B": 1,
    **{f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)},
    **{f"{unit}IB": 1024**power for power, unit in enumerate("KMGT", 1)},
}
_BYTES = re.compile(r"^([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([KMGT]I?B|B|)$", re.IGNORECASE)
_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")


def parse_tokens(value: object) -> int:
    """A number of tokens: an integer, or text with a decimal suffix K, M, B or T.

    Raises:
        ConfigError: not a number of tokens, negative, not a whole number (`1.5` or `2.0001K`), or
            beyond 64 bits.
    """
    hint = "write a whole number of tokens such as 500000, 20M or 2.5B"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ConfigError(f"{value!r} is not a number of tokens: {hint}")
    if isinstance(value, int):
        tokens = Decimal(value)
    else:
        match = _TOKENS.match(str(value).strip())
        try:  # text such as `1e9` is a float to YAML 1.2 and a string to YAML 1.1
            if match:
                tokens = Decimal(match[1].replace("_", "")) * _FACTORS[match[2].upper()]
            else:
                tokens = Decimal(str(value))
        except InvalidOperation:
            raise ConfigError(f"{value!r} is not a number of tokens: {hint}") from None
    if not tokens.is_finite() or tokens < 0 or tokens != tokens.to_integral_value():
        raise ConfigError(f"{value!r} is not a whole number of tokens: {hint}")
    if tokens > _LARGEST:
        raise ConfigError(f"{value!r} is more tokens than can be counted: {hint}")
    return int(tokens)


def parse_bytes(value: object) -> int:
    """A number of bytes: an integer, or text with a unit such as `75GB` (decimal) or `256MiB`.

    Raises:
        ConfigError: not a number of bytes, negative, not a whole number, or beyond 64 bits.
    """
    hint = "write a whole number of bytes, or text such as 75GB or 256MiB"
    match = None if isinstance(value, bool) else _BYTES.match(str(value).strip())
    if match is None:
        raise ConfigError(f"{value!r} is not a number of bytes: {hint}")
    size = Decimal(match[1].replace("_", "")) * _BYTE_FACTORS[match[2].upper()]
    if size != size.to_integral_value() or size > _LARGEST:
        raise ConfigError(f"{value!r} is not a whole number of bytes: {hint}")
    return int(size)


def parse_duration(value: object) -> float:
    """A wall-clock duration in seconds: a number of seconds, or text such as `3h50m` or `90s`.

    Raises:
        ConfigError: not a duration, or not above 0.
    """
    hint = "write seconds above 0, or text such as 3h50m"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = _DURATION.match(str(value).strip().lower())
        if not match or not any(match.groups()):
            raise ConfigError(f"{value!r} is not a duration: {hint}")
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"{value!r} is not a duration: {hint}")
    return seconds
