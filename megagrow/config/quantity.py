"""Quantities people write in a configuration: token counts (`20M`, `2.5B`) and durations (`3h50m`)."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from megagrow.errors import ConfigError

_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_TOKENS = re.compile(r"^([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*([KMBT]?)$", re.IGNORECASE)
_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")


def parse_tokens(value: object) -> int:
    """A number of tokens: an integer, or text with a decimal suffix K, M, B or T.

    Raises:
        ConfigError: not a number of tokens, negative, or not a whole number (`1.5` or `2.0001K`).
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
    return int(tokens)


def format_tokens(tokens: int) -> str:
    """The shortest text that `parse_tokens` reads back as about `tokens`: 2500000000 -> `2.5B`."""
    for suffix in ("T", "B", "M", "K"):
        factor = _FACTORS[suffix]
        if tokens >= factor:
            digits = f"{tokens / factor:.3g}" if tokens < 1000 * factor else f"{tokens / factor:.0f}"
            return f"{digits}{suffix}"
    return str(tokens)


def parse_duration(value: object) -> float:
    """A wall-clock duration in seconds: a number of seconds, or text such as `3h50m` or `90s`.

    Raises:
        ConfigError: not a duration.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    match = _DURATION.match(str(value).strip().lower())
    if not match or not any(match.groups()):
        raise ConfigError(f"{value!r} is not a duration: write seconds, or text such as 3h50m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
