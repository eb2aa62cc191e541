"""Growth of a stored model: one tensor after another, as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from megagrow.config.schema import InitConfig
from megagrow.conversion.layout import TensorSource
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.adjust import mix_noise, noise_std
from megagrow.growth.keys import is_residual_output, layer_of, weight_source
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.width.operator import WidthOperator
from megagrow.model.initialisation import first_values
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName
from megagrow.pipeline.redistribution.ownership import Block, Owned


class GrownTensors:
    """The weights of a grown model under megatron-core's keys; a `TensorSource` itself.

    They are, bit for bit in fp32, what growth in flight makes of the same weights with the same
    seeds. First the depth changes, then the width.

    Args:
        source: the old model under megatron-core's keys.
        growth: the new depth.
        old: the old model.
        new: the new one; of other widths only with `width`.
        init: how layers of a new model are drawn.
        draw_seed: seed of drawn layers.
        noise_seed: seed of a tensor's noise, by its key.
        width: how tensors get wider; None: they do not.
        predicted: a tensor of the deeper model that is not what `growth` makes of it; None: it is.
        norms_of: the old layer that the norms of new layers are copied from; None: the same as all
            else.

    Raises:
        ConfigError: `width` cannot make the one shape of the other.
    """

    def __init__(
        self,
        source: TensorSource,
        growth: GrowthPlan,
        old: ModelShape,
        new: ModelShape,
        *,
        init: InitConfig,
        draw_seed: int,
        noise_seed: Callable[[str], int],
        width: WidthOperator | None = None,
        predicted: Callable[[TensorName], Tensor | None] = lambda name: None,
        norms_of: int | None = None,
    ) -> None:
        layers = tuple(old.layers[layer or 0] for layer in growth.layer_map)
        self._deeper = replace(old, layers=layers)
        self._new = new
        if width is not None:
            width.check(self._deeper, new)
        self._source = source
        self._growth = growth
        self._weights, self._norms_of = weight_source(growth), norms_of
        self._predicted = predicted
        self._before, self._after = megatron_layout(self._deeper), megatron_layout(new)
        self._init, self._draw_seed, self._noise_seed = init, draw_seed, noise_seed
        self._width = width

    def keys(self) -> Iterable[str]:
        """Names of all weights, from input to output."""
        return self._after.by_key.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Size of a weight."""
        return self._after.stored_shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """That of the weight it comes from; of a drawn one, that of the first weight."""
        return self._source.dtype(self._origin(key) or next(iter(self._before.by_key)))

    def tensor(self, key: str) -> Tensor:
        """One weight."""
        tensor = self._deepened(key)
        if self._width is not None:
            stored = self._before.by_key[key]
            parts = self._before.split(stored, tensor)
            wide = [
                self._width.widen(name, parts[name], self._deeper, self._new)
                for name in stored.parts
            ]
            tensor = self._after.join(self._after.by_key[key], wide)
        return tensor.to(self.dtype(key))

    def _origin(self, key: str) -> str | None:
        layer = layer_of(key)
        if self._norms_of is not None and layer in self._growth.added and "norm" in key:
            return key.replace(f"layers.{layer}.", f"layers.{self._norms_of}.", 1)
        return self._weights(key)

    def _foretold(self, key: str, tensor: Tensor) -> Tensor:
        """A tensor of the deeper model, with the parts of it that are predicted."""
        stored = self._before.by_key[key]
        found = [self._predicted(name) for name in stored.parts]
        if all(part is None for part in found):
            return tensor
        old = self._before.split(stored, tensor)
        parts = zip(stored.parts, found, strict=True)
        return self._before.join(
            stored, [old[name] if part is None else part.to(tensor.dtype) for name, part in parts]
        )

    def _deepened(self, key: str) -> Tensor:
        origin, growth = self._origin(key), self._growth
        if origin is None:
            size = self._before.stored_shape(key)
            tensor = first_values(key, size, self._deeper, self._init, self._draw_seed)
        else:
            tensor = self._foretold(key, self._source.tensor(origin))
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
