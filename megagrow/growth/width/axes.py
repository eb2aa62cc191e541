"""What the dimensions of tensors range over. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName


class Axis(Enum):
    """What a dimension of a tensor ranges over; two dimensions of one axis grow alike."""

    VOCABULARY = "vocabulary"
    """Rows of the embedding; never grows."""

    POSITION = "position"
    """Places in a sequence; never grows."""

    HIDDEN = "hidden"
    """The residual stream."""

    QUERY = "query"
    """Query heads x head dimension, the heads of one key/value group side by side."""

    GROUP = "group"
    """Key/value heads x head dimension."""

    HEAD = "head"
    """The head dimension."""

    FFN = "FFN"
    """Inner channels of an MLP."""


AXES: Mapping[Role, tuple[Axis, ...]] = MappingProxyType(
    {
        Role.TOKEN_EMBEDDING: (Axis.VOCABULARY, Axis.HIDDEN),
        Role.POSITION_EMBEDDING: (Axis.POSITION, Axis.HIDDEN),
        Role.OUTPUT: (Axis.VOCABULARY, Axis.HIDDEN),
        Role.FINAL_NORM: (Axis.HIDDEN,),
        Role.ATTENTION_NORM: (Axis.HIDDEN,),
        Role.QUERY: (Axis.QUERY, Axis.HIDDEN),
        Role.KEY: (Axis.GROUP, Axis.HIDDEN),
        Role.VALUE: (Axis.GROUP, Axis.HIDDEN),
        Role.QUERY_NORM: (Axis.HEAD,),
        Role.KEY_NORM: (Axis.HEAD,),
        Role.ATTENTION_OUTPUT: (Axis.HIDDEN, Axis.QUERY),
        Role.MLP_NORM: (Axis.HIDDEN,),
        Role.GATE: (Axis.FFN, Axis.HIDDEN),
        Role.UP: (Axis.FFN, Axis.HIDDEN),
        Role.DOWN: (Axis.HIDDEN, Axis.FFN),
    }
)
"""Axes of a weight, or of a norm's gain."""

EMBEDDINGS = frozenset({Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING})
"""Tables whose hidden dimension is an output: a row is looked up, not summed over."""

HIDDEN_NORMS = frozenset({Role.FINAL_NORM, Role.ATTENTION_NORM, Role.MLP_NORM})
"""Norms of the residual stream."""


def axes(name: TensorName) -> tuple[Axis, ...]:
    """The axis of each dimension of a tensor."""
    return AXES[name.role][:1] if name.bias else AXES[name.role]


def input_axis(name: TensorName, shape: ModelShape) -> Axis | None:
    """The axis of a tensor's last dimension if a factor on it is a factor on inputs of a sum.

    That is the input axis of a linear layer. Where embedding and output layer are one tensor, the
    output layer's factors have no place in it: an embedding is looked up. They go to the gain and
    bias of the final norm, which multiplies the same inputs.
    """
    if name.role is Role.FINAL_NORM:
        return Axis.HIDDEN if shape.tie_embeddings else None
    if name.bias or name.role in EMBEDDINGS or len(AXES[name.role]) == 1:
        return None
    return AXES[name.role][1]


def is_rms_gain(name: TensorName, shape: ModelShape) -> bool:
    """Whether a tensor is the gain of an RMSNorm of the residual stream."""
    return shape.style == "llama" and name.role in HIDDEN_NORMS and not name.bias
