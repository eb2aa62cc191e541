"""Keys of the Llama family in transformers: Llama, Mistral, Qwen2 and Qwen3."""

from __future__ import annotations

from megagrow.conversion.layout import Layout, StoredTensor
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, tensor_names

PREFIX = "model."
"""Before all keys but the output layer's; a folder of the model without its head has none."""

_KEYS = {
    Role.TOKEN_EMBEDDING: "embed_tokens",
    Role.FINAL_NORM: "norm",
    Role.ATTENTION_NORM: "input_layernorm",
    Role.QUERY: "self_attn.q_proj",
    Role.KEY: "self_attn.k_proj",
    Role.VALUE: "self_attn.v_proj",
    Role.QUERY_NORM: "self_attn.q_norm",
    Role.KEY_NORM: "self_attn.k_norm",
    Role.ATTENTION_OUTPUT: "self_attn.o_proj",
    Role.MLP_NORM: "post_attention_layernorm",
    Role.GATE: "mlp.gate_proj",
    Role.UP: "mlp.up_proj",
    Role.DOWN: "mlp.down_proj",
}


def llama_layout(shape: ModelShape, prefix: str = PREFIX) -> Layout:
    """A model as transformers stores a Llama: nothing fused, nothing transposed.

    Args:
        shape: the model, with as many embedding rows as are stored.
        prefix: `model.`, or nothing.
    """
    tensors = []
    for name in tensor_names(shape):
        kind = "bias" if name.bias else "weight"
        if name.role is Role.OUTPUT:
            key = "lm_head"
        else:
            layer = "" if name.layer is None else f"layers.{name.layer}."
            key = f"{prefix}{layer}{_KEYS[name.role]}"
        tensors.append(StoredTensor(key=f"{key}.{kind}", parts=(name,)))
    return Layout(shape=shape, tensors=tuple(tensors))


def is_needless(key: str) -> bool:
    """Whether a key is of what old versions of transformers stored beside the weights."""
    return key.endswith(".rotary_emb.inv_freq")
