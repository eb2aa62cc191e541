"""What growth makes of one whole tensor, wherever it is: on disk, or in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from megagrow.config.schema import InitConfig
from megagrow.conversion.layout import Layout
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.adjust import SeedOf, mix_noise, noise_std
from megagrow.growth.between import deepened_shape
from megagrow.growth.keys import is_residual_output, layer_of, weight_source
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.width.interface import WidthOperator
from megagrow.growth.width.moments import Moment, widened_moment
from megagrow.model.initialisation import first_values
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName
from megagrow.pipeline.redistribution.ownership import Block, Owned

Predicted = Mapping[TensorName, Tensor]
"""Tensors of the deeper model that are predicted, not copied."""


class WholeTensors:
    """The tensors of a grown model, each from the one that it comes from.

    First the depth changes, then the width. The result is, bit for bit in fp32, the same wherever
    it is made.

    Args:
        growth: the new depth.
        old: the old model.
        new: the new one; of other widths only with `width`.
        init: how layers of a new model are drawn.
        draw_seed: seed of drawn layers.
        noise_seed: seed of a tensor's noise, by its key.
        width: how tensors get wider; None: they do not.

    Raises:
        ConfigError: `width` cannot make the one shape of the other.
    """

    def __init__(
        self,
        growth: GrowthPlan,
        old: ModelShape,
        new: ModelShape,
        *,
        init: InitConfig,
        draw_seed: int,
        noise_seed: SeedOf,
        width: WidthOperator | None = None,
    ) -> None:
        self._deeper = deepened_shape(growth, old, new)
        if width is not None:
            width.check(self._deeper, new)
        self._new, self._width, self._growth = new, width, growth
        self.before: Layout = megatron_layout(self._deeper)
        """What would be stored of the deeper model, before it gets wider."""
        self.layout: Layout = megatron_layout(new)
        """What is stored of the grown model."""
        self.origin = weight_source(growth)
        """The old tensor that `tensor` makes a new one of, by keys; None: it is drawn."""
        self._init, self._draw_seed, self._noise_seed = init, draw_seed, noise_seed

    def tensor(self, key: str, origin: Tensor | None, predicted: Predicted | None = None) -> Tensor:
        """A weight of the grown model.

        Args:
            key: its name.
            origin: the old weight `self.origin(key)`, unchanged by this; None where that is None.
            predicted: what of it is predicted, if anything is.

        Returns:
            The weight, of the dtype of `origin`; it may share memory with it.
        """
        tensor = self._deepened(key, origin, predicted or {})
        return self._widened(key, tensor, self._widen)

    def moment(self, moment: Moment, key: str, origin: Tensor, *, copies: bool) -> Tensor:
        """A moment of Adam for a weight of the grown model.

        Args:
            moment: which one.
            key: the weight.
            origin: the moment of the weight that it comes from.
            copies: whether new channels that are copies take the moments they are copies of; else
                theirs are 0.
        """
        return self._widened(
            key, origin, lambda name, part: self._widen_moment(moment, name, part, copies=copies)
        )

    def _widened(
        self, key: str, tensor: Tensor, widen: Callable[[TensorName, Tensor], Tensor]
    ) -> Tensor:
        if self._width is None:
            return tensor
        stored = self.before.by_key[key]
        parts = self.before.split(stored, tensor)
        return self.layout.join(
            self.layout.by_key[key], [widen(name, parts[name]) for name in stored.parts]
        )

    def _widen(self, name: TensorName, part: Tensor) -> Tensor:
        assert self._width is not None
        return self._width.widen(name, part, self._deeper, self._new)

    def _widen_moment(
        self, moment: Moment, name: TensorName, part: Tensor, *, copies: bool
    ) -> Tensor:
        assert self._width is not None
        shapes = (self._deeper, self._new)
        return widened_moment(self._width, moment, name, part, *shapes, copies=copies)

    def _deepened(self, key: str, origin: Tensor | None, predicted: Predicted) -> Tensor:
        growth = self._growth
        if origin is None:
            size = self.before.stored_shape(key)
            origin = first_values(key, size, self._deeper, self._init, self._draw_seed)
        tensor = self._foretold(key, origin, predicted)
        if layer_of(key) in growth.zeroed and is_residual_output(key):
            return torch.zeros_like(tensor)
        if not growth.noise:
            return tensor
        mixed = tensor.float().reshape(-1)
        mixed = mixed.clone() if mixed.data_ptr() == tensor.data_ptr() else mixed
        rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
        whole = Owned(Block(key, 0, 0, rows, columns), 0, tensor.numel())
        std = noise_std(key, self._deeper)
        mix_noise(whole, mixed, growth.noise, std, self._noise_seed(key))
        return mixed.view(tensor.shape)

    def _foretold(self, key: str, tensor: Tensor, predicted: Predicted) -> Tensor:
        """A tensor of the deeper model, with the parts of it that are predicted."""
        stored = self.before.by_key[key]
        if not any(name in predicted for name in stored.parts):
            return tensor
        old = self.before.split(stored, tensor)
        return self.before.join(
            stored, [predicted.get(name, old[name]).to(tensor) for name in stored.parts]
        )
