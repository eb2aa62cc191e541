"""config.json of our own family, for what no other holds <-> our model configuration.

Its keys are those of a Qwen3, with lists of the sizes of every layer, and the Python files of
`hugging_face_code` beside it, which transformers runs and we do not.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from megagrow.config.schema import LayerScalingConfig, LayerTable, ModelConfig
from megagrow.conversion.config_keys import ConfigKeys
from megagrow.conversion.llama_config import Kin, read_llama, write_llama
from megagrow.model.shape import ModelShape

FAMILY = "megagrow"
"""Its `model_type`."""

_CODE = Path(__file__).with_name("hugging_face_code")
_FILES = ("configuration_megagrow.py", "modeling_megagrow.py")
_AUTO_MAP = {
    "AutoConfig": "configuration_megagrow.MegagrowConfig",
    "AutoModel": "modeling_megagrow.MegagrowModel",
    "AutoModelForCausalLM": "modeling_megagrow.MegagrowForCausalLM",
}
_SIZES = {
    "num_attention_heads": "num_attention_heads_per_layer",
    "num_query_groups": "num_key_value_heads_per_layer",
    "ffn_hidden_size": "intermediate_size_per_layer",
}
"""Our name of a layer's size, and the key of the list."""


def read_megagrow(
    keys: ConfigKeys, seq_length: int | None, vocab_padding: int
) -> tuple[ModelConfig, int]:
    """Model and number of layers that a config.json describes; a table where layers differ.

    Args:
        keys: the file.
        seq_length: tokens per sequence to train with; None: all its positions.
        vocab_padding: the multiple of embedding rows to have.

    Raises:
        CheckpointError: a key asks for what our models have not; names it.
    """
    layers = keys.whole("num_hidden_layers")
    sizes = {name: keys.wholes(key, layers) for name, key in _SIZES.items()}
    pairs = zip(sizes["num_attention_heads"], sizes["num_query_groups"], strict=True)
    for layer, (heads, groups) in enumerate(pairs):
        if heads % groups:
            raise keys.error(
                _SIZES["num_query_groups"],
                f"has {groups} for layer {layer}, whose {heads} heads cannot share them",
            )
    kin = _kin(keys.flag("qkv_bias", False), keys.flag("qk_norm", False))
    keys.ignore("auto_map")  # names code, which is not run here
    model, layers = read_llama(kin, keys, seq_length, vocab_padding)
    varying = {name: each for name, each in sizes.items() if len(set(each)) > 1}
    scaling = LayerScalingConfig(variant="table", table=LayerTable(**varying))
    model = replace(model, layer_scaling=scaling if varying else None, **_largest(sizes))
    return model, layers


def write_megagrow(model: ModelConfig, shape: ModelShape) -> dict[str, Any]:
    """The config.json of a model of the style llama.

    Args:
        model: the model's configuration.
        shape: its shape, of layers that may differ.
    """
    sizes = {name: [getattr(layer, name) for layer in shape.layers] for name in _SIZES}
    largest = replace(shape.layers[0], **_largest(sizes))
    plain = replace(shape, layers=(largest,) * shape.num_layers)
    return {
        **write_llama(_kin(model.qkv_bias, model.qk_norm), model, plain),
        **{key: sizes[name] for name, key in _SIZES.items()},
        "qkv_bias": model.qkv_bias,
        "qk_norm": model.qk_norm,
        "auto_map": _AUTO_MAP,
    }


def copy_code(folder: Path) -> None:
    """Puts the Python files that its config.json names into a folder."""
    for name in _FILES:
        shutil.copyfile(_CODE / name, folder / name)


def _kin(qkv_bias: bool, qk_norm: bool) -> Kin:
    return Kin(
        model_type=FAMILY,
        architecture="MegagrowForCausalLM",
        defaults={"head_dim": 128},
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        fixed={"attention_bias": False},
        window="switch",
    )


def _largest(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: max(each) for name, each in sizes.items()}
