"""What a tensor of a transformer is, whatever a format calls it. Pure Python.

The roles are those of an unfused model: query, key and value apart, gate and up apart. A weight is
`[out features, in features]`, as in torch's `Linear`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape


class Role(Enum):
    """What a tensor does. The value is its name in messages."""

    TOKEN_EMBEDDING = "token embedding"
    """[padded vocabulary, hidden]"""

    POSITION_EMBEDDING = "position embedding"
    """[sequence length, hidden]"""

    OUTPUT = "output layer"
    """[padded vocabulary, hidden]; absent where it is tied to the token embedding."""

    FINAL_NORM = "final norm"
    """[hidden]"""

    ATTENTION_NORM = "norm before attention"
    """[hidden]"""

    QUERY = "query"
    """[heads x head dimension, hidden]"""

    KEY = "key"
    """[key/value heads x head dimension, hidden]"""

    VALUE = "value"
    """[key/value heads x head dimension, hidden]"""

    QUERY_NORM = "norm of queries"
    """[head dimension]"""

    KEY_NORM = "norm of keys"
    """[head dimension]"""

    ATTENTION_OUTPUT = "attention output"
    """[hidden, heads x head dimension]"""

    MLP_NORM = "norm before the MLP"
    """[hidden]"""

    GATE = "MLP gate"
    """[FFN, hidden]; only in a gated MLP."""

    UP = "MLP up"
    """[FFN, hidden]"""

    DOWN = "MLP down"
    """[hidden, FFN]"""


RESIDUAL_OUTPUTS = frozenset({Role.ATTENTION_OUTPUT, Role.DOWN})
"""What a layer adds to the residual stream: a layer where these are zero changes nothing."""

NORMS = frozenset(
    {Role.FINAL_NORM, Role.ATTENTION_NORM, Role.MLP_NORM, Role.QUERY_NORM, Role.KEY_NORM}
)
"""Vectors that start at 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorName:
    """One tensor of a model."""

    role: Role
    """What it does."""

    layer: int | None = None
    """The transformer layer it is part of, from 0; None: of no layer."""

    bias: bool = False
    """Whether it is the bias of its role: a vector over the weight's first dimension."""


def tensor_names(shape: ModelShape) -> Iterator[TensorName]:
    """Every tensor of a model, from input to output, a layer's biases last; tied ones once."""
    gpt2 = shape.style == "gpt2"
    yield TensorName(role=Role.TOKEN_EMBEDDING)
    if gpt2:
        yield TensorName(role=Role.POSITION_EMBEDDING)
    for layer in range(shape.num_layers):
        roles = [
            role
            for role in _LAYER_ROLES
            if not (role is Role.GATE and gpt2) and (shape.qk_norm or role not in _HEAD_NORMS)
        ]
        for role in roles:
            yield TensorName(role=role, layer=layer)
        for role in roles:
            if gpt2 or (role in _QKV and shape.qkv_bias):
                yield TensorName(role=role, layer=layer, bias=True)
    yield TensorName(role=Role.FINAL_NORM)
    if gpt2:
        yield TensorName(role=Role.FINAL_NORM, bias=True)
    if not shape.tie_embeddings:
        yield TensorName(role=Role.OUTPUT)


_QKV = frozenset({Role.QUERY, Role.KEY, Role.VALUE})
_HEAD_NORMS = frozenset({Role.QUERY_NORM, Role.KEY_NORM})
_LAYER_ROLES = tuple(
    role
    for role in Role
    if role not in (Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING, Role.OUTPUT, Role.FINAL_NORM)
)


def tensor_shape(name: TensorName, shape: ModelShape) -> tuple[int, ...]:
    """Size of a tensor of a model, unsplit.

    Raises:
        ValueError: a layer the model does not have.
    """
    hidden = shape.hidden_size
    if name.role in (Role.TOKEN_EMBEDDING, Role.OUTPUT):
        return (shape.padded_vocab_size, hidden)
    if name.role is Role.POSITION_EMBEDDING:
        return (shape.seq_length, hidden)
    if name.role in (Role.FINAL_NORM, Role.ATTENTION_NORM, Role.MLP_NORM):
        return (hidden,)
    if name.layer is None or not 0 <= name.layer < shape.num_layers:
        raise ValueError(f"{name.role.value}: no layer {name.layer} among {shape.num_layers}")
    out, into = _features(name.role, shape.layers[name.layer], hidden)
    return (out,) if name.bias or not into else (out, into)


def _features(role: Role, layer: LayerShape, hidden: int) -> tuple[int, int]:
    """Output and input features of a layer's tensor; 0 inputs for a vector."""
    heads = layer.num_attention_heads * layer.kv_channels
    groups = layer.num_query_groups * layer.kv_channels
    return {
        Role.QUERY: (heads, hidden),
        Role.KEY: (groups, hidden),
        Role.VALUE: (groups, hidden),
        Role.QUERY_NORM: (layer.kv_channels, 0),
        Role.KEY_NORM: (layer.kv_channels, 0),
        Role.ATTENTION_OUTPUT: (hidden, heads),
        Role.GATE: (layer.ffn_hidden_size, hidden),
        Role.UP: (layer.ffn_hidden_size, hidden),
        Role.DOWN: (hidden, layer.ffn_hidden_size),
    }[role]
