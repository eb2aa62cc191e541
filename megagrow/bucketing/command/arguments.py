"""Values as they are written on the command lines of the bucketing tools."""

from __future__ import annotations

import argparse
import math

from megagrow.config.quantity import parse_tokens
from megagrow.errors import ConfigError


def tokens(text: str) -> int:
    """A count such as `20K` or `50B`."""
    try:
        return parse_tokens(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(each.strip() for each in text.split(","))


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write numbers with commas between them, such as 0.5,0.3,0.2"
        ) from None


def price(text: str) -> float:
    """An amount of money."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount >= 0):
        raise argparse.ArgumentTypeError(f"{text!r}: write a number such as 0.04")
    return amount
