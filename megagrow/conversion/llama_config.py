"""config.json of Llama, Mistral, Qwen2 and Qwen3 <-> our model configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megagrow.config.schema import ModelConfig
from megagrow.conversion.config_keys import ConfigKeys
from megagrow.errors import CheckpointError
from megagrow.model.shape import ModelShape

LLAMA31 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The numbers of Llama 3.1's RoPE scaling that all its kin share (`ModelConfig.rotary_scaling`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kin:
    """What sets one member of the family apart."""

    model_type: str
    """Its name in config.json."""

    architecture: str
    """Its class in transformers."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of keys that config.json leaves out, where they are not those of Llama."""

    qkv_bias: bool = False
    """Whether queries, keys and values have biases."""

    qk_norm: bool = False
    """Whether queries and keys have norms."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Keys of its own that must have this value, and get it on export."""

    window: str | None = None
    """How it says that its attention has a sliding window: a number alone, or with a switch."""


KIN = {
    kin.model_type: kin
    for kin in (
        Kin(
            model_type="llama",
            architecture="LlamaForCausalLM",
            fixed={"attention_bias": False, "mlp_bias": False},
        ),
        Kin(
            model_type="mistral",
            architecture="MistralForCausalLM",
            defaults={"num_key_value_heads": 8, "sliding_window": 4096},
            window="number",
        ),
        Kin(model_type="qwen2", architecture="Qwen2ForCausalLM", qkv_bias=True, window="switch"),
        Kin(
            model_type="qwen3",
            architecture="Qwen3ForCausalLM",
            defaults={"head_dim": 128},
            qk_norm=True,
            fixed={"attention_bias": False},
            window="switch",
        ),
    )
}
"""The members of the family."""


def read_llama(
    kin: Kin, keys: ConfigKeys, seq_length: int | None, vocab_padding: int
) -> tuple[ModelConfig, int]:
    """Model and number of layers that a config.json describes.

    Args:
        kin: which member of the family.
        keys: the file.
        seq_length: tokens per sequence to train with; None: all its positions.
        vocab_padding: the multiple of embedding rows to have.

    Raises:
        CheckpointError: a key asks for what our models have not; names it.
    """
    hidden, heads = keys.whole("hidden_size"), keys.whole("num_attention_heads")
    layers, positions = keys.whole("num_hidden_layers"), keys.whole("max_position_embeddings", 2048)
    if seq_length is not None and seq_length > positions:
        raise keys.error(
            "max_position_embeddings", f"is {positions}, less than {seq_length} tokens"
        )
    length = seq_length or positions
    if kin.window is not None:
        _check_window(kin, keys, length, layers)
    base, scaling = _rope(keys)
    keys.only("hidden_act", "silu")
    keys.only("attention_dropout", 0.0)
    for key, value in kin.fixed.items():
        keys.only(key, value)
    model = ModelConfig(
        style="llama",
        hidden_size=hidden,
        num_attention_heads=heads,
        num_query_groups=keys.whole(
            "num_key_value_heads", kin.defaults.get("num_key_value_heads", heads)
        ),
        kv_channels=keys.whole("head_dim", kin.defaults.get("head_dim", hidden // heads)),
        ffn_hidden_size=keys.whole("intermediate_size"),
        vocab_size=keys.whole("vocab_size"),
        vocab_padding=vocab_padding,
        seq_length=length,
        tie_embeddings=keys.flag("tie_word_embeddings", False),
        norm_epsilon=keys.number("rms_norm_eps", 1e-6),
        rotary_base=base,
        rotary_scaling=scaling,
        qkv_bias=kin.qkv_bias,
        qk_norm=kin.qk_norm,
    )
    keys.finish()
    return model, layers


def write_llama(kin: Kin, model: ModelConfig, shape: ModelShape) -> dict[str, Any]:
    """The config.json of a model.

    Args:
        kin: which member of the family to call it.
        model: the model's configuration.
        shape: its shape.

    Raises:
        CheckpointError: that member has not what the model has.
    """
    layer = shape.layers[0]
    if (model.qkv_bias, model.qk_norm) != (kin.qkv_bias, kin.qk_norm):
        raise CheckpointError(
            f"{kin.model_type} has qkv_bias={kin.qkv_bias} and qk_norm={kin.qk_norm}, the model "
            f"qkv_bias={model.qkv_bias} and qk_norm={model.qk_norm}: leave --family out, or choose "
            "another one. megagrow alone has both."
        )
    if kin.model_type == "llama" and shape.hidden_size % layer.num_attention_heads:
        raise CheckpointError(
            f"transformers wants a llama's hidden_size ({shape.hidden_size}) to be a multiple of "
            f"its heads ({layer.num_attention_heads}): export it with --family mistral, which "
            "computes the same."
        )
    rope: dict[str, Any] = {"rope_theta": float(model.rotary_base)}
    if model.rotary_scaling is not None:
        rope["rope_scaling"] = {"rope_type": "llama3", "factor": model.rotary_scaling, **LLAMA31}
    window: dict[str, dict[str, Any]] = {
        "number": {"sliding_window": None},
        "switch": {"use_sliding_window": False},
    }
    return {
        "architectures": [kin.architecture],
        "model_type": kin.model_type,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": layer.num_attention_heads,
        "num_key_value_heads": layer.num_query_groups,
        "head_dim": layer.kv_channels,
        "intermediate_size": layer.ffn_hidden_size,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.seq_length,
        "tie_word_embeddings": shape.tie_embeddings,
        "rms_norm_eps": model.norm_epsilon,
        **rope,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": model.init.std,
        **kin.fixed,
        **window.get(kin.window or "", {}),
    }


def _rope(keys: ConfigKeys) -> tuple[int, float | None]:
    """Base and scaling factor; as transformers 4 writes them, or 5."""
    joint = keys.value("rope_parameters") or {}
    scaling = keys.value("rope_scaling") or joint
    name = "rope_scaling" if scaling is not joint else "rope_parameters"
    if not isinstance(joint, dict) or not isinstance(scaling, dict):
        raise keys.error(name, "must be a mapping")
    base = joint.get("rope_theta", scaling.get("rope_theta", keys.value("rope_theta")))
    base = 10_000.0 if base is None else base
    if not isinstance(base, int | float) or base != int(base) or base < 1:
        raise keys.error("rope_theta", f"is {base!r}; only whole numbers above 0 can be converted")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    known = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
    known |= {"factor", *LLAMA31} if kind == "llama3" else set()
    if kind not in ("default", "llama3"):
        raise keys.error(
            f"{name}.rope_type", f"is {kind!r}; only 'default' and 'llama3' can be converted"
        )
    for key, value in {**scaling, **joint}.items():
        if key not in known:
            raise keys.error(f"{name}.{key}", f"is {value!r}, which cannot be converted")
        if key == "partial_rotary_factor" and value != 1.0:
            raise keys.error(f"{name}.{key}", f"is {value!r}; only 1.0 can be converted")
        if key in LLAMA31 and value != LLAMA31[key]:
            raise keys.error(
                f"{name}.{key}", f"is {value!r}; only Llama 3.1's {LLAMA31[key]} can be converted"
            )
    if kind == "default":
        return int(base), None
    if not isinstance(scaling.get("factor"), int | float) or scaling["factor"] < 1:
        raise keys.error(f"{name}.factor", "must be a number from 1 on")
    return int(base), float(scaling["factor"])


def _check_window(kin: Kin, keys: ConfigKeys, length: int, layers: int) -> None:
    """Refuses attention to less than the whole sequence."""
    window = keys.value("sliding_window", kin.defaults.get("sliding_window"))
    if kin.window == "switch":
        first = keys.value("max_window_layers", layers)
        kinds = keys.value("layer_types")
        if not keys.flag("use_sliding_window", False):
            window = None
        some = first < layers if kinds is None else "sliding_attention" in kinds
        window = window if some else None
    if window is not None and window < length:
        raise keys.error(
            "sliding_window", f"is {window}, less than the sequence length {length}: attention "
            f"here has no window. Convert it for sequences of up to {window} tokens, where the "
            f"window changes nothing: --seq-length {window}"
        )  # fmt: skip
