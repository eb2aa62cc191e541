"""Numbers as people read them, and arithmetic on whole numbers. Pure Python, for every room."""

from __future__ import annotations

import math

_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_FLOP_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))


def format_count(count: float) -> str:
    """A count of tokens, parameters or samples as `512`, `20M`, `2.5B`.

    Three digits are kept; `megagrow.config.quantity.parse_tokens` reads a whole number back, to
    within half a percent.
    """
    return _scaled(count, _COUNT_UNITS, "")


def format_flops(flops: float) -> str:
    """Floating-point operations as `1.2 PFLOP`; from 1000 EFLOP on as `1.2e21 FLOP`."""
    if abs(flops) >= 1e21:
        return f"{flops:.3g} FLOP".replace("e+", "e")
    return f"{_scaled(flops, _FLOP_UNITS, ' ')}FLOP"


def format_bytes(size: float) -> str:
    """Bytes in binary units: `1.5 GiB`; `?` where not finite."""
    if not math.isfinite(size):
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{_digits(size)} TiB"


def format_duration(seconds: float) -> str:
    """Seconds as `0.42s`, `12s`, `4m 09s`, `1h 03m`, `2d 04h`; `?` where not finite."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{seconds:.2g}s" if seconds < 1 else f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02d}h"


def counted(count: int, noun: str) -> str:
    """A count and its noun: `1 file`, `1,200 files`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted`, the smaller of two."""
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    divisors = [*small, *(number // divisor for divisor in small)]
    return min(divisors, key=lambda divisor: (abs(divisor - wanted), divisor))


def nearest_multiple(number: int, wanted: int) -> int:
    """The multiple of `number`, at least itself, nearest to `wanted`, the smaller of two."""
    low = max(wanted // number, 1) * number
    return min((low, low + number), key=lambda multiple: (abs(multiple - wanted), multiple))


def _scaled(value: float, units: tuple[tuple[float, str], ...], gap: str) -> str:
    if not math.isfinite(value):
        return f"{value}{gap}"
    # Compare what will be printed, so that 999,600 reads 1M and not 1000K.
    for size, unit in units:
        if float(f"{abs(value) / size:.3g}") >= 1:
            return f"{_digits(value / size)}{gap}{unit}"
    return f"{_digits(value)}{gap}"


def _digits(value: float) -> str:
    """Three significant digits, never in exponent form above 1."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
