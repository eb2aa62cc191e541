"""Keys of megatron-core's GPT in our checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from megagrow.conversion.layout import Layout, StoredTensor
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName, tensor_names

_KEYS = {
    Role.TOKEN_EMBEDDING: "embedding.word_embeddings.",
    Role.POSITION_EMBEDDING: "embedding.position_embeddings.",
    Role.FINAL_NORM: "decoder.final_layernorm.",
    Role.OUTPUT: "output_layer.",
    Role.ATTENTION_NORM: "self_attention.linear_qkv.layer_norm_",
    Role.QUERY: "self_attention.linear_qkv.",
    Role.QUERY_NORM: "self_attention.q_layernorm.",
    Role.KEY_NORM: "self_attention.k_layernorm.",
    Role.ATTENTION_OUTPUT: "self_attention.linear_proj.",
    Role.MLP_NORM: "mlp.linear_fc1.layer_norm_",
    Role.UP: "mlp.linear_fc1.",
    Role.DOWN: "mlp.linear_fc2.",
}


def megatron_layout(shape: ModelShape) -> Layout:
    """A model in our checkpoints: padded vocabulary, fused QKV, gate and up as `_w` and `_v`.

    The same keys with both layer specs, in any parallel layout; tied embeddings are stored once.
    """
    return Layout(shape=shape, tensors=tuple(_tensors(shape)))


def unsplit(key: str) -> str:
    """The key under which a model has what is stored as two tensors; of others, their own.

    megatron-core stores gate and up apart and calls them one while it saves and loads
    (`ShardedTensorFactory`).
    """
    return key[:-2] if key.endswith(("mlp.linear_fc1.weight_w", "mlp.linear_fc1.weight_v")) else key


def _tensors(shape: ModelShape) -> Iterator[StoredTensor]:
    for name in tensor_names(shape):
        if name.role in (Role.KEY, Role.VALUE):
            continue
        before = "" if name.layer is None else f"decoder.layers.{name.layer}."
        kind = "bias" if name.bias else "weight"
        if name.role is Role.GATE:
            yield StoredTensor(key=f"{before}mlp.linear_fc1.weight_w", parts=(name,))
            continue
        key = before + _KEYS[name.role] + kind
        if name.role is Role.QUERY:
            yield StoredTensor(key=key, parts=qkv(name), interleaved=True)
        elif name.role is Role.UP and shape.style == "llama":
            yield StoredTensor(key=f"{key}_v", parts=(name,))
        else:
            yield StoredTensor(key=key, parts=(name,))


def qkv(query: TensorName) -> tuple[TensorName, ...]:
    """Queries, keys and values of the layer of `query`, weights or biases as it is."""
    return tuple(
        TensorName(role=role, layer=query.layer, bias=query.bias)
        for role in (Role.QUERY, Role.KEY, Role.VALUE)
    )
