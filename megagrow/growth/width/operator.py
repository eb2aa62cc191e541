"""The interface of width operators, and their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor

from megagrow.config.schema import WidthConfig
from megagrow.errors import ConfigError
from megagrow.growth.width.corners import Random, Zero
from megagrow.growth.width.double import Double
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.hyperclone import HyperClone
from megagrow.growth.width.rms_preserving import RmsPreserving
from megagrow.growth.width.split import Split
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName


class WidthOperator(Protocol):
    """Makes a model wider, tensor by tensor, so that a model need never be in memory whole."""

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """Says whether it can grow one shape into another.

        Args:
            old: the model.
            new: the wider model, of as many layers.

        Raises:
            ConfigError: it cannot; with the nearest size that it can.
        """

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """One tensor of the wider model. It depends on this tensor alone.

        Args:
            name: which tensor; a model has the same ones before and after.
            tensor: it in the old model, unsplit, of any floating-point dtype, on any device.
            old: the model.
            new: the wider model; `check` accepts the pair.

        Returns:
            The tensor, of the same dtype and on the same device; it may share memory with `tensor`
            where nothing grows.

        Raises:
            ValueError: the tensor has not the shape that it has in `old`.
        """


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
    return width_operator(options.pop("operator"), draws, **options)


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
