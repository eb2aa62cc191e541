"""Which modules a transformer block is made of: Transformer Engine's, or PyTorch's.

Both give the same checkpoint keys. Transformer Engine keeps each norm inside the linear layer
that follows it; megatron-core's local spec saves ``input_layernorm.weight`` under that name
(``self_attention.linear_qkv.layer_norm_weight``), and this one keeps its map.
"""

from __future__ import annotations

from functools import partial

from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig

from megagrow.model.activation import SwiGLU
from megagrow.model.attention import ScaledDotProductAttention, ScaledRotarySelfAttention
from megagrow.model.norm import norm_class
from megagrow.model.transformer_config import is_rotary_scaled, uses_transformer_engine


def block_spec(
    config: TransformerConfig, vp_stage: int | None = None
) -> TransformerBlockSubmodules:
    """The layers of this rank's chunk, and the norm that follows the last layer of the model.

    Args:
        config: The model; its pipeline layout says how many layers the chunk has.
        vp_stage: Which of the rank's chunks (interleaved schedule); None: it has one.
    """
    layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    if uses_transformer_engine():
        from megatron.core.extensions.transformer_engine import TENorm

        return TransformerBlockSubmodules(
            layer_specs=[layer_spec(config)] * layers, layer_norm=TENorm
        )
    return TransformerBlockSubmodules(
        layer_specs=[layer_spec(config)] * layers, layer_norm=norm_class(config)
    )


def layer_spec(config: TransformerConfig) -> ModuleSpec:
    """One transformer layer: attention and MLP, each behind a norm, in a residual stream."""
    spec = _transformer_engine_spec(config) if uses_transformer_engine() else _local_spec(config)
    if is_rotary_scaled(config):
        spec.submodules.self_attention.module = ScaledRotarySelfAttention
    return spec


def _transformer_engine_spec(config: TransformerConfig) -> ModuleSpec:
    return gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec(
        qk_layernorm=config.qk_layernorm
    )


def _local_spec(config: TransformerConfig) -> ModuleSpec:
    spec = gpt_layer_specs.get_gpt_layer_local_spec()
    norm = norm_class(config)
    spec.submodules.input_layernorm = norm
    spec.submodules.pre_mlp_layernorm = norm
    attention = spec.submodules.self_attention.submodules
    attention.core_attention = ScaledDotProductAttention
    if config.qk_layernorm:
        attention.q_layernorm = norm
        attention.k_layernorm = norm
    if config.use_te_activation_func:
        mlp = spec.submodules.mlp  # a ModuleSpec in 0.16, a functools.partial in 0.19
        submodules = mlp.keywords["submodules"] if isinstance(mlp, partial) else mlp.submodules
        submodules.activation_func = SwiGLU
    return spec
