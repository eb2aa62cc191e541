"""Configuration of a model trained with megagrow: a Qwen3 whose layers may differ in size.

Beside config.json in an exported folder; `trust_remote_code=True` loads it. It needs transformers
4.51 or later, and nothing of megagrow.
"""

from transformers import Qwen3Config


class MegagrowConfig(Qwen3Config):
    """All keys of a Qwen3, and these; `head_dim` is the same in every layer.

    `num_attention_heads`, `num_key_value_heads` and `intermediate_size` hold where the list is
    missing; in an exported folder they are the largest of any layer.
    """

    model_type = "megagrow"

    num_attention_heads_per_layer: list[int] | None = None
    """Query heads of each layer, from input to output."""

    num_key_value_heads_per_layer: list[int] | None = None
    """Key/value heads of each layer."""

    intermediate_size_per_layer: list[int] | None = None
    """Inner width of each layer's MLP."""

    qkv_bias: bool = False
    """Whether queries, keys and values have biases, as in Qwen2; nothing else has."""

    qk_norm: bool = False
    """Whether queries and keys have norms over the head dimension, as in Qwen3."""
