"""Growth of a stored model: one tensor after another, as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from megagrow.conversion.layout import TensorSource
from megagrow.growth.whole_tensors import Predicted, WholeTensors


class GrownTensors:
    """The weights of a grown model under megatron-core's keys; a `TensorSource` itself.

    They are, bit for bit in fp32, what growth in flight makes of the same weights with the same
    seeds.

    Args:
        source: the old model under megatron-core's keys.
        growth: what becomes of a tensor.
        predicted: the tensors that go into a stored one and are predicted, by its key.
    """

    def __init__(
        self,
        source: TensorSource,
        growth: WholeTensors,
        predicted: Callable[[str], Predicted] = lambda key: {},
    ) -> None:
        self._source, self._growth, self._predicted = source, growth, predicted

    def keys(self) -> Iterable[str]:
        """Names of all weights, from input to output."""
        return self._growth.layout.by_key.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Size of a weight."""
        return self._growth.layout.stored_shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """That of the weight it comes from; of a drawn one, that of the first weight."""
        return self._source.dtype(self._growth.origin(key) or next(iter(self.keys())))

    def tensor(self, key: str) -> Tensor:
        """One weight."""
        found = self._growth.origin(key)
        origin = None if found is None else self._source.tensor(found)
        return self._growth.tensor(key, origin, self._predicted(key)).to(self.dtype(key))
