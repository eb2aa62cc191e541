"""HyperCloning: an integer factor wider, the same function."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from megagrow.growth.width.axes import input_axis
from megagrow.growth.width.channels import Channels, channels, copied, scaled_inputs
from megagrow.growth.width.checks import check_width
from megagrow.growth.width.draws import Draws
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperClone:
    """HyperCloning (arXiv 2409.12903; apple/ml-hypercloning): W' = tile(W) / n.

    n is by how much the weight's inputs grow; hidden size, heads, key/value groups and FFN may each
    grow by a factor of its own. Embeddings, biases and norms are tiled as they are. Every
    activation becomes n copies of the old one, so the function is exact, norms included.

    Heads: new heads are copies of old ones, of the same head dimension, and query heads sit with a
    copy of their key and value (`channels`). The head dimension may grow in the gpt2 style without
    norms of queries and keys: copies within a head make scores k times as large where the scale
    makes up for sqrt(k), so query and key are each divided by k^(1/4). Rotary frequencies are
    defined by the head dimension, so in the llama style it must stay.

    An untied output layer is tiled / n. A tied one cannot be: the final norm's gain and bias are
    divided by n instead, which is the same function (the authors scale the output layer when it
    runs).
    """

    snr_db: float | None = None
    """Signal-to-noise ratio in dB of the noise added to linear layers whose inputs grow: +e on an
    even copy of an input and -e on the odd one that follows, so the output stays; the last of an
    odd number has none. Without noise (None) the copies stay equal for ever."""

    draws: Draws = field(default_factory=Draws)
    """Where the noise comes from."""

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`."""
        check_width("hyperclone", old, new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        wide = copied(name, tensor, old, new)
        if name.layer is not None and name.role in (Role.QUERY, Role.KEY):
            before, after = old.layers[name.layer].kv_channels, new.layers[name.layer].kv_channels
            wide = wide * (before / after) ** 0.25
        axis = input_axis(name, old)
        if axis is None:
            return wide
        inputs = channels(axis, name.layer, old, new)
        wide = scaled_inputs(wide, inputs.count.double().reciprocal())
        if self.snr_db is None or wide.dim() < 2 or wide.shape[1] == tensor.shape[1]:
            return wide
        std = wide.float().square().mean().sqrt().item() * 10 ** (-self.snr_db / 20)
        return self._noisy(name, wide, inputs, std)

    def _noisy(self, name: TensorName, wide: Tensor, inputs: Channels, std: float) -> Tensor:
        copies = int(inputs.count[0])
        old_inputs, pairs = wide.shape[1] // copies, copies // 2
        drawn = self.draws.normal(name, (wide.shape[0], pairs * old_inputs), std, wide.device)
        paired = (inputs.copy < 2 * pairs).nonzero().squeeze(1)
        place = inputs.copy[paired] // 2 * old_inputs + inputs.source[paired]
        sign = torch.where(inputs.copy[paired] % 2 == 0, 1.0, -1.0).to(wide.device)
        noise = drawn.index_select(1, place.to(wide.device)) * sign
        return wide.float().index_add(1, paired.to(wide.device), noise).to(wide.dtype)
