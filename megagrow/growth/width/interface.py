"""The interface of width operators."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

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
