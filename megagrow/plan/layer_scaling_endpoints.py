"""The endpoints of layer-wise scaling by name: `ffn.first`, `qkv.ends` and so on. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from megagrow.config.layer_scaling import LARGEST, points_fault
from megagrow.config.schema import LayerScalingConfig
from megagrow.errors import ConfigError

PROFILES = {"ffn": "ffn_multipliers", "qkv": "qkv_multipliers"}
"""First half of an endpoint's name -> the key it is a point of."""

DECIMALS = 2
"""Decimals of multipliers in files, and of those between two points."""


def points_of(scaling: LayerScalingConfig, name: str) -> tuple[str, tuple[int, ...]]:
    """The key that an endpoint belongs to, and its places among the points there.

    Raises:
        ConfigError: there is no such endpoint, or its profile is unset.
    """
    profile, _, end = name.partition(".")
    key = PROFILES.get(profile)
    last = 2 if scaling.variant == "crown" else 1
    places = {"first": (0,), "last": (last,), "ends": (0, last)}
    if scaling.variant == "crown":
        places["middle"] = (1,)
    if key is None or end not in places:
        known = ", ".join(f"{first}.{second}" for first in PROFILES for second in places)
        raise ConfigError(f"no endpoint {name!r} in variant {scaling.variant}; known: {known}")
    if getattr(scaling, key) is None:
        raise ConfigError(f"{name}: {key} is unset; give it multipliers to start from")
    return key, places[end]


def moved(scaling: LayerScalingConfig, name: str, value: float) -> LayerScalingConfig:
    """The scaling with an endpoint at `value`."""
    key, places = points_of(scaling, name)
    points = tuple(
        value if place in places else point for place, point in enumerate(getattr(scaling, key))
    )
    if key == PROFILES["ffn"]:
        return replace(scaling, ffn_multipliers=points)
    return replace(scaling, qkv_multipliers=points)


def allowed_values(
    scaling: LayerScalingConfig,
    name: str,
    between: tuple[float, float] = (0.0, LARGEST),
    decimals: int = DECIMALS,
) -> list[float]:
    """Values that an endpoint may take in its variant, in order.

    Args:
        scaling: gives the other points.
        name: the endpoint.
        between: least and most.
        decimals: of the values.
    """
    key, _ = points_of(scaling, name)
    unit = 10**decimals
    low, high = (round(bound * unit) for bound in between)
    values = (number / unit for number in range(max(low, 1), min(high, round(LARGEST * unit)) + 1))
    return [
        value
        for value in values
        if points_fault(scaling.variant, getattr(moved(scaling, name, value), key)) is None
    ]


def present_value(scaling: LayerScalingConfig, name: str) -> float:
    """Where an endpoint stands; of `ends`, the first."""
    key, places = points_of(scaling, name)
    value: float = getattr(scaling, key)[places[0]]
    return value


def roundest(values: Sequence[float], wanted: float) -> float:
    """Of values that are as good as each other, one of few digits, near the one wanted."""
    for step in (1.0, 0.5, 0.1, 0.05, 10.0**-DECIMALS):
        round_ones = [value for value in values if abs(value / step - round(value / step)) < 1e-6]
        if round_ones:
            return min(round_ones, key=lambda value: abs(value - wanted))
    return min(values, key=lambda value: abs(value - wanted))
