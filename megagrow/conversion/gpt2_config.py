"""config.json of GPT-2 <-> our model configuration."""

from __future__ import annotations

from typing import Any

from megagrow.config.schema import ModelConfig
from megagrow.conversion.config_keys import ConfigKeys
from megagrow.errors import CheckpointError
from megagrow.model.shape import ModelShape

_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def read_gpt2(
    keys: ConfigKeys, seq_length: int | None, vocab_padding: int
) -> tuple[ModelConfig, int]:
    """Model and number of layers that a config.json describes.

    Args:
        keys: the file.
        seq_length: tokens per sequence to train with: positions that are kept; None: all.
        vocab_padding: the multiple of embedding rows to have.

    Raises:
        CheckpointError: a key asks for what our models have not; names it.
    """
    positions = keys.whole("n_positions", 1024)
    if seq_length is not None and seq_length > positions:
        raise keys.error("n_positions", f"is {positions}, less than {seq_length} tokens")
    keys.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    keys.only("scale_attn_weights", True)
    keys.only("scale_attn_by_inverse_layer_idx", False)
    keys.only("add_cross_attention", False)
    keys.ignore("reorder_and_upcast_attn", "summary_activation", "summary_first_dropout")
    keys.ignore("summary_proj_to_labels", "summary_type", "summary_use_proj")
    rates = {key: keys.number(key, 0.1) for key in _DROPOUTS}
    if len(set(rates.values())) != 1:
        raise keys.error(
            "resid_pdrop", f"and its kin differ ({rates}), and our models have one rate of "
            "dropout. It changes training only: make them equal in that file"
        )  # fmt: skip
    hidden = keys.whole("n_embd", 768)
    model = ModelConfig(
        style="gpt2",
        hidden_size=hidden,
        num_attention_heads=keys.whole("n_head", 12),
        ffn_hidden_size=keys.whole("n_inner", 4 * hidden),
        vocab_size=keys.whole("vocab_size"),
        vocab_padding=vocab_padding,
        seq_length=seq_length or positions,
        tie_embeddings=keys.flag("tie_word_embeddings", True),
        norm_epsilon=keys.number("layer_norm_epsilon", 1e-5),
        dropout=rates["resid_pdrop"],
    )
    layers = keys.whole("n_layer", 12)
    keys.finish()
    return model, layers


def write_gpt2(model: ModelConfig, shape: ModelShape) -> dict[str, Any]:
    """The config.json of a model.

    Raises:
        CheckpointError: the model has what transformers' GPT-2 has not.
    """
    layer, hidden = shape.layers[0], shape.hidden_size
    heads = layer.num_attention_heads
    lacking = {
        "qk_norm": model.qk_norm,
        "num_query_groups": layer.num_query_groups != heads,
        "kv_channels": layer.kv_channels * heads != hidden,
    }
    for key, has in lacking.items():
        if has:
            raise CheckpointError(
                f"model.{key}: transformers' GPT-2 has no such thing, so this model cannot be "
                "exported. Train with style llama, which knows it, or without that key."
            )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_layer": shape.num_layers,
        "n_head": heads,
        "n_inner": layer.ffn_hidden_size,
        "vocab_size": shape.vocab_size,
        "n_positions": shape.seq_length,
        "tie_word_embeddings": shape.tie_embeddings,
        "layer_norm_epsilon": model.norm_epsilon,
        "activation_function": "gelu_new",
        **dict.fromkeys(_DROPOUTS, model.dropout),
        "initializer_range": model.init.std,
    }
