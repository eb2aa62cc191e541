"""Which old channel each channel of a wider axis is, or copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megagrow.growth.width.axes import Axis, axes
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName, tensor_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Channels:
    """One axis of a wider model. Tensors are int64, one entry for each new channel, on the CPU."""

    source: Tensor
    """The old channel that it is, or is a copy of."""

    copy: Tensor
    """Which copy of that channel it is, from 0; copy 0 is where the old channel lives on."""

    count: Tensor
    """How many copies of that channel there are, 0 included."""

    @property
    def is_identity(self) -> bool:
        """Whether every channel is the old one of its number."""
        return bool((self.source == torch.arange(len(self.source))).all())


def channels(axis: Axis, layer: int | None, old: ModelShape, new: ModelShape) -> Channels:
    """The channels of an axis, given shapes that `check_shapes` accepts.

    Channel i of the hidden, FFN and head axes copies channel `i mod old`. Key/value group i copies
    group `i mod old groups`; the query heads of all copies of a group take that group's old heads
    in turn. So every query head keeps the key and value it had. With as many query heads to a
    group as before, heads are tiled like everything else: new head i copies `i mod old heads`.

    Args:
        axis: the axis.
        layer: the layer it is part of; None: of none.
        old: the model.
        new: the wider model.
    """
    if axis in (Axis.VOCABULARY, Axis.POSITION):
        size = old.padded_vocab_size if axis is Axis.VOCABULARY else old.seq_length
        return _counted(*_cyclic(size, size))
    if axis is Axis.HIDDEN:
        return _counted(*_cyclic(old.hidden_size, new.hidden_size))
    if layer is None:
        raise ValueError(f"the {axis.value} axis belongs to a layer")
    narrow, wide = old.layers[layer], new.layers[layer]
    if axis is Axis.FFN:
        return _counted(*_cyclic(narrow.ffn_hidden_size, wide.ffn_hidden_size))
    inside = _cyclic(narrow.kv_channels, wide.kv_channels)
    if axis is Axis.HEAD:
        return _counted(*inside)
    if axis is Axis.GROUP:
        heads = _cyclic(narrow.num_query_groups, wide.num_query_groups)
    else:
        heads = _query_heads(narrow, wide)
    # Copies of a channel are copies of its head times copies within the head.
    times = int(inside[1].max()) + 1
    source = heads[0][:, None] * narrow.kv_channels + inside[0]
    copy = heads[1][:, None] * times + inside[1]
    return _counted(source.reshape(-1), copy.reshape(-1))


def copied(name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
    """A tensor of the wider model in which every channel is copied from its source, unscaled.

    Raises:
        ValueError: the tensor has not the shape that it has in `old`.
    """
    check_tensor(name, tensor, old)
    for dimension, axis in enumerate(axes(name)):
        found = channels(axis, name.layer, old, new)
        if not found.is_identity or len(found.source) != tensor.shape[dimension]:
            tensor = tensor.index_select(dimension, found.source.to(tensor.device))
    return tensor


def kept(name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
    """A tensor of the wider model with the old one where its channels live on, and 0 elsewhere.

    What the moments become that keep what is old and start at 0 where anything is new (SPARKLING,
    arXiv 2602.02472, section 4.2; MSG), for every operator but `double`.

    Raises:
        ValueError: the tensor has not the shape that it has in `old`.
    """
    wide = copied(name, tensor, old, new)
    for dimension, axis in enumerate(axes(name)):
        added = channels(axis, name.layer, old, new).copy.nonzero().squeeze(1)
        if len(added):
            wide = wide.index_fill(dimension, added.to(wide.device), 0.0)
    return wide


def scaled_inputs(tensor: Tensor, factors: Tensor) -> Tensor:
    """`tensor` with its last dimension multiplied by `factors`, in its own dtype."""
    precise = torch.promote_types(tensor.dtype, torch.float32)
    return (tensor * factors.to(device=tensor.device, dtype=precise)).to(tensor.dtype)


def check_tensor(name: TensorName, tensor: Tensor, shape: ModelShape) -> None:
    """Checks that a tensor is whole.

    Raises:
        ValueError: it has not the shape that it has in a model of this shape.
    """
    expected = tensor_shape(name, shape)
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, expected {expected}: pass it unsplit")


def _cyclic(old: int, new: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(new)
    return index % old, index // old


def _query_heads(old: LayerShape, new: LayerShape) -> tuple[Tensor, Tensor]:
    per_group = old.num_attention_heads // old.num_query_groups
    places = new.num_attention_heads // new.num_query_groups
    group, copy = _cyclic(old.num_query_groups, new.num_query_groups)
    turn = copy[:, None] * places + torch.arange(places)
    source = group[:, None] * per_group + turn % per_group
    return source.reshape(-1), (turn // per_group).reshape(-1)


def _counted(source: Tensor, copy: Tensor) -> Channels:
    return Channels(source=source, copy=copy, count=torch.bincount(source)[source])
