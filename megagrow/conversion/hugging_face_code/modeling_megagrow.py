"""A model trained with megagrow: a Qwen3 whose layers may differ in heads and MLP width.

Beside config.json in an exported folder; `trust_remote_code=True` loads it. It needs transformers
4.51 or later, and nothing of megagrow.
"""

import copy

from torch import nn
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3DecoderLayer,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from .configuration_megagrow import MegagrowConfig


def _layer(config: MegagrowConfig, index: int) -> Qwen3DecoderLayer:
    own = copy.copy(config)
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        sizes = getattr(config, f"{name}_per_layer")
        if sizes is not None:
            setattr(own, name, sizes[index])
    own.attention_bias = config.qkv_bias
    layer = Qwen3DecoderLayer(own, index)
    attention = layer.self_attn
    attention.o_proj.bias = None
    if not config.qk_norm:
        attention.q_norm, attention.k_norm = nn.Identity(), nn.Identity()
    # It reads the implementation of attention there, which set_attn_implementation changes.
    attention.config = config
    return layer


class MegagrowModel(Qwen3Model):
    """The model without its output layer."""

    config_class = MegagrowConfig

    def __init__(self, config: MegagrowConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(_layer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()


class MegagrowForCausalLM(Qwen3ForCausalLM):
    """The model with its output layer."""

    config_class = MegagrowConfig

    def __init__(self, config: MegagrowConfig) -> None:
        # Past Qwen3ForCausalLM's own, which would make a Qwen3Model first.
        super(Qwen3ForCausalLM, self).__init__(config)
        self.model = MegagrowModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
