"""Width operators by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any

from megagrow.config.schema import WidthConfig
from megagrow.errors import ConfigError
from megagrow.growth.width.corners import Random, Zero
from megagrow.growth.width.double import Double
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.hyperclone import HyperClone
from megagrow.growth.width.interface import WidthOperator
from megagrow.growth.width.narrowing import Narrowing
from megagrow.growth.width.rms_preserving import RmsPreserving
from megagrow.growth.width.split import Split

OPERATORS: Mapping[str, Callable[..., WidthOperator]] = MappingProxyType(
    {
        "split": Split,
        "zero": Zero,
        "random": Random,
        "hyperclone": HyperClone,
        "double": Double,
        "rms_preserving": RmsPreserving,
    }
)
"""Width operators by the name they have in a configuration."""


def configured(width: WidthConfig | None, draws: Draws) -> WidthOperator | None:
    """The operator of a transition; None: its model gets no wider."""
    if width is None:
        return None
    options = {key: value for key, value in asdict(width).items() if value is not None}
    options.pop("mask_tokens", None)  # what the model does while it trains
    shrinks = options.pop("shrink", None) is not None
    operator = width_operator(options.pop("operator"), draws, **options)
    return Narrowing(then=operator) if shrinks else operator


def width_operator(name: str, draws: Draws, **options: Any) -> WidthOperator:
    """A named operator.

    Args:
        name: one of `OPERATORS`.
        draws: where it takes random values from, if it takes any.
        options: its other fields.

    Raises:
        ConfigError: no such operator or option, or a value that it refuses.
    """
    if name not in OPERATORS:
        raise ConfigError(f"no width operator {name!r}; one of: {', '.join(OPERATORS)}")
    known = {field.name for field in fields(OPERATORS[name])}  # type: ignore[arg-type]
    for option in options:
        if option not in known - {"draws"}:
            listed = ", ".join(sorted(known - {"draws"})) or "none"
            raise ConfigError(f"{name}: no option {option!r}; it has: {listed}")
    return OPERATORS[name](**options, **({"draws": draws} if "draws" in known else {}))
