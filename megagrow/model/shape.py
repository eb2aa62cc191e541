"""The shape of a model: every derived dimension in one place. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megagrow.config.schema import ModelConfig
from megagrow.model.layer import LayerShape, head_dimension
from megagrow.model.layer_scaling import scaled_layers

FFN_MULTIPLE = 64
"""Default FFN widths of the llama style are rounded up to this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A whole model, depth included."""

    style: Literal["gpt2", "llama"]
    """Family: norms, activation, positions and biases follow from it."""

    hidden_size: int
    """Width of the residual stream."""

    layers: tuple[LayerShape, ...]
    """Layers from input to output."""

    vocab_size: int
    """Tokenizer vocabulary."""

    padded_vocab_size: int
    """Rows of the embedding."""

    seq_length: int
    """Tokens in a sequence."""

    tie_embeddings: bool
    """Whether input embedding and output layer share weights."""

    qkv_bias: bool = False
    """Whether queries, keys and values have biases; always in the gpt2 style."""

    qk_norm: bool = False
    """Whether queries and keys have norms, over the head dimension."""

    @property
    def num_layers(self) -> int:
        """Depth."""
        return len(self.layers)

    @property
    def is_isotropic(self) -> bool:
        """Whether all layers have one shape."""
        return len(set(self.layers)) == 1


def model_shape(model: ModelConfig, num_layers: int) -> ModelShape:
    """The shape of `model` with `num_layers` layers, equal ones but for layer-wise scaling."""
    heads = model.num_attention_heads
    width = model.ffn_hidden_size or _default_ffn(model)
    layers: tuple[LayerShape, ...]
    if model.layer_scaling is not None:
        layers = scaled_layers(model, model.layer_scaling, num_layers, width)
    else:
        layer = LayerShape(
            num_attention_heads=heads,
            num_query_groups=model.num_query_groups or heads,
            kv_channels=head_dimension(model),
            ffn_hidden_size=width,
        )
        layers = (layer,) * num_layers
    return ModelShape(
        style=model.style,
        hidden_size=model.hidden_size,
        layers=layers,
        vocab_size=model.vocab_size,
        padded_vocab_size=round_up(model.vocab_size, model.vocab_padding),
        seq_length=model.seq_length,
        tie_embeddings=model.style == "gpt2"
        if model.tie_embeddings is None
        else model.tie_embeddings,
        qkv_bias=model.style == "gpt2" or model.qkv_bias,
        qk_norm=model.qk_norm,
    )


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `number`."""
    return -(-number // multiple) * multiple


def _default_ffn(model: ModelConfig) -> int:
    if model.style == "gpt2":
        return 4 * model.hidden_size
    return round_up(-(-8 * model.hidden_size // 3), FFN_MULTIPLE)
