"""The families of Hugging Face models that convert: their config.json and their keys, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megagrow.config.schema import ModelConfig
from megagrow.conversion import gpt2_names, llama_names
from megagrow.conversion.config_keys import TOKEN_IDS, ConfigKeys
from megagrow.conversion.gpt2_config import read_gpt2, write_gpt2
from megagrow.conversion.layout import Layout
from megagrow.conversion.llama_config import KIN, read_llama, write_llama
from megagrow.conversion.megagrow_config import FAMILY, read_megagrow, write_megagrow
from megagrow.errors import CheckpointError
from megagrow.model.shape import ModelShape

FAMILIES = ("gpt2", *KIN, FAMILY)
"""Values of `model_type` that are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceModel:
    """What a config.json says."""

    family: str
    """Its `model_type`."""

    model: ModelConfig
    """The model in our terms."""

    layers: int
    """Its depth."""

    token_ids: Mapping[str, Any]
    """Ids of special tokens, under their keys in config.json."""


def read_config(
    data: Mapping[str, Any], where: Path, *, seq_length: int | None = None, vocab_padding: int = 128
) -> HuggingFaceModel:
    """What a config.json says.

    Args:
        data: its content.
        where: its path, for messages.
        seq_length: tokens per sequence; None: as many as it has positions.
        vocab_padding: the multiple of embedding rows to have.

    Raises:
        CheckpointError: another family, or a key that cannot be converted; names it.
    """
    keys = ConfigKeys(data, where)
    family = keys.value("model_type")
    if family not in FAMILIES:
        raise keys.error(
            "model_type", f"is {family!r}; these can be converted: {', '.join(FAMILIES)}"
        )
    keys.only("quantization_config", None)
    if family != FAMILY:
        keys.only("auto_map", None)
    if family == FAMILY:
        model, layers = read_megagrow(keys, seq_length, vocab_padding)
    elif family == "gpt2":
        model, layers = read_gpt2(keys, seq_length, vocab_padding)
    else:
        model, layers = read_llama(KIN[family], keys, seq_length, vocab_padding)
    token_ids = {key: data.get(key) for key in TOKEN_IDS}
    return HuggingFaceModel(family=family, model=model, layers=layers, token_ids=token_ids)


def write_config(family: str, model: ModelConfig, shape: ModelShape) -> dict[str, Any]:
    """A config.json without special tokens.

    Raises:
        CheckpointError: the family has not what the model has.
    """
    if (family == "gpt2") != (model.style == "gpt2"):
        raise CheckpointError(
            f"a model of the style {model.style} is no {family}: leave --family out, or choose one "
            f"of {', '.join((*KIN, FAMILY)) if model.style == 'llama' else 'gpt2'}."
        )
    if family == FAMILY:
        return write_megagrow(model, shape)
    if not shape.is_isotropic:
        mend = "leave --family out" if model.style == "llama" else "train with style llama"
        raise CheckpointError(
            f"transformers' {family} has layers of one size, and those of this model differ "
            f"(model.layer_scaling). The family {FAMILY}, of the style llama, holds them: {mend}."
        )
    if family == "gpt2":
        return write_gpt2(model, shape)
    return write_llama(KIN[family], model, shape)


def family_of(model: ModelConfig, shape: ModelShape) -> str:
    """The family that a model is exported as unless told otherwise."""
    if model.style == "gpt2":
        return "gpt2"
    if not shape.is_isotropic or (model.qk_norm and model.qkv_bias):
        return FAMILY
    if model.qk_norm:
        return "qwen3"
    return "qwen2" if model.qkv_bias else "llama"


def layout_of(family: str, shape: ModelShape, found: Iterable[str] | None = None) -> Layout:
    """How a family stores a model.

    Args:
        family: its `model_type`.
        shape: the model, with as many embedding rows as are stored.
        found: the keys of a folder, which tell whether it has the family's prefix; None: it has.
    """
    names: Any = gpt2_names if family == "gpt2" else llama_names
    build = names.gpt2_layout if family == "gpt2" else names.llama_layout
    prefixed = found is None or any(key.startswith(names.PREFIX) for key in found)
    layout: Layout = build(shape, names.PREFIX if prefixed else "")
    return layout


def is_needless(family: str, shape: ModelShape, key: str) -> bool:
    """Whether a key that the layout does not know may be left out."""
    if key == "lm_head.weight":  # a copy of the embedding, which some files hold too
        return shape.tie_embeddings
    names: Any = gpt2_names if family == "gpt2" else llama_names
    return bool(names.is_needless(key))
