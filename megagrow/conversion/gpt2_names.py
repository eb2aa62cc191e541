"""Keys of GPT-2 in transformers."""

from __future__ import annotations

import re

from megagrow.conversion.layout import Layout, StoredTensor
from megagrow.conversion.megatron_names import qkv
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, tensor_names

PREFIX = "transformer."
"""Before all keys but the output layer's; the files that OpenAI's weights come in have none."""

_KEYS = {
    Role.TOKEN_EMBEDDING: "wte",
    Role.POSITION_EMBEDDING: "wpe",
    Role.FINAL_NORM: "ln_f",
    Role.ATTENTION_NORM: "ln_1",
    Role.QUERY: "attn.c_attn",
    Role.ATTENTION_OUTPUT: "attn.c_proj",
    Role.MLP_NORM: "ln_2",
    Role.UP: "mlp.c_fc",
    Role.DOWN: "mlp.c_proj",
}

_CONV1D = frozenset({Role.QUERY, Role.ATTENTION_OUTPUT, Role.UP, Role.DOWN})
_CAUSAL_MASK = re.compile(r"(^|\.)h\.\d+\.attn\.(bias|masked_bias)$")


def gpt2_layout(shape: ModelShape, prefix: str = PREFIX) -> Layout:
    """A model as transformers stores a GPT-2: QKV fused one after the other, weights transposed.

    Args:
        shape: the model, with as many embedding rows as are stored.
        prefix: `transformer.`, or nothing.
    """
    tensors = []
    for name in tensor_names(shape):
        if name.role in (Role.KEY, Role.VALUE):
            continue
        kind = "bias" if name.bias else "weight"
        layer = "" if name.layer is None else f"h.{name.layer}."
        output = name.role is Role.OUTPUT
        key = "lm_head" if output else f"{prefix}{layer}{_KEYS[name.role]}"
        tensors.append(
            StoredTensor(
                key=f"{key}.{kind}",
                parts=qkv(name) if name.role is Role.QUERY else (name,),
                transposed=name.role in _CONV1D and not name.bias,
            )
        )
    return Layout(shape=shape, tensors=tuple(tensors))


def is_needless(key: str) -> bool:
    """Whether a key is of the causal mask, which old versions of transformers stored."""
    return _CAUSAL_MASK.search(key) is not None
