"""A model shape and a parallel layout -> megatron-core's ``TransformerConfig``.

Only fields that 0.16.1 and 0.19.2 share are set.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.tensor_parallel import layers as parallel_layers
from megatron.core.transformer.transformer_config import TransformerConfig

from megagrow.config.schema import ModelConfig, ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.layer import LayerShape
from megagrow.model.pipeline_layout import pipeline_model_parallel_layout
from megagrow.model.shape import ModelShape
from megagrow.runtime import device

Precision = Literal["bf16", "fp32"]

DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""The dtype of weights and activations that a precision stands for."""


@dataclass
class GrowingConfig(TransformerConfig):
    """What megatron-core's config has no field for; the layer spec reads it."""

    rotary_base: int = 10_000
    """Base period of rotary positions."""

    rotary_scaling: float | None = None
    """Factor of Llama 3.1's scaling of rotary frequencies; None: they are not scaled."""

    layer_shapes: tuple[LayerShape, ...] = ()
    """Sizes of every layer, if they vary (``heterogeneous_block_specs``)."""

    def get_config_for_layer(self, layer_number: int) -> TransformerConfig:
        """The config of one layer, as ``TransformerBlock`` asks for it.

        Args:
            layer_number: from 1 at the input, over all pipeline stages.
        """
        layer = self.layer_shapes[layer_number - 1]
        config = copy.copy(self)
        config.num_attention_heads = layer.num_attention_heads
        config.num_query_groups = layer.num_query_groups
        config.ffn_hidden_size = layer.ffn_hidden_size
        return config


def is_rotary_scaled(config: TransformerConfig) -> bool:
    """Whether a config asks for scaled rotary frequencies."""
    return isinstance(config, GrowingConfig) and config.rotary_scaling is not None


def uses_transformer_engine() -> bool:
    """Whether layers are Transformer Engine's: it is installed, and there is a GPU for it."""
    return bool(gpt_layer_specs.HAVE_TE) and device.is_cuda()


def transformer_config(
    shape: ModelShape,
    model: ModelConfig,
    parallel: ParallelConfig,
    precision: Precision,
    pipeline_layout: Sequence[int] | None = None,
) -> TransformerConfig:
    """Describe a model to megatron-core.

    Weights are not initialised by it (``perform_initialization=False``):
    :func:`megagrow.model.initialisation.initialise` does that, whatever the layout.

    Args:
        shape: Sizes; layers of different sizes, if the model has layer-wise scaling.
        model: Dropout, norm epsilon and the other numbers that are no sizes.
        parallel: Tensor, pipeline and virtual pipeline sizes, sequence parallelism, recomputation.
        precision: ``bf16`` or ``fp32``.
        pipeline_layout: Layers of each chunk, from input to output; chunk ``v * pipeline + p`` is
            virtual stage ``v`` of pipeline rank ``p``. None: equal chunks.

    Raises:
        LayoutError: the sizes do not divide, the layout does not fit the model, or the kernel of a
            fusion is not there.
    """
    varies = model.layer_scaling is not None
    if not varies and not shape.is_isotropic:
        raise LayoutError("layers of different shapes need model.layer_scaling.")
    layer = shape.layers[0]
    _check_tensor(shape, parallel)
    dtype = DTYPES[precision]
    return GrowingConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=layer.num_attention_heads,
        num_query_groups=layer.num_query_groups,
        kv_channels=layer.kv_channels,
        ffn_hidden_size=layer.ffn_hidden_size,
        layernorm_epsilon=model.norm_epsilon,
        hidden_dropout=model.dropout,
        attention_dropout=model.dropout,
        init_method_std=model.init.std,
        perform_initialization=False,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=precision == "bf16",
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=_virtual(parallel),
        pipeline_model_parallel_layout=pipeline_model_parallel_layout(
            shape.num_layers, parallel, pipeline_layout
        ),
        sequence_parallel=parallel.sequence_parallel,
        deallocate_pipeline_outputs=True,
        transformer_impl="transformer_engine" if uses_transformer_engine() else "local",
        deterministic_mode=device.is_deterministic(),
        # Its kernel belongs to the attention that scaled_dot_product_attention replaces.
        masked_softmax_fusion=False,
        add_qkv_bias=shape.qkv_bias,
        qk_layernorm=shape.qk_norm,
        heterogeneous_block_specs=varies,
        layer_shapes=shape.layers if varies else (),
        rotary_base=model.rotary_base,
        rotary_scaling=_rotary_scaling(model),
        **_style(shape),
        **_recompute(parallel),
        **_loss_and_gradient_fusion(parallel),
        **_device_choices(),
        **p2p_options(parallel),
    )


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU in its tanh form: GPT-2's, and what megatron-core's fused bias-GELU computes."""
    return F.gelu(x, approximate="tanh")


def _style(shape: ModelShape) -> dict[str, Any]:
    if shape.style == "llama":
        return {
            "normalization": "RMSNorm",
            "gated_linear_unit": True,
            "activation_func": F.silu,
            # The hook for a module of the spec; here for ours, where the fused one is not used.
            "use_te_activation_func": not device.is_cuda(),
            "add_bias_linear": False,
        }
    return {
        "normalization": "LayerNorm",
        "gated_linear_unit": False,
        # The fused function insists on the name and computes the tanh form all the same.
        "activation_func": F.gelu if device.is_cuda() else gelu,
        "add_bias_linear": True,
    }


def _rotary_scaling(model: ModelConfig) -> float | None:
    factor = model.rotary_scaling
    if factor is None or model.style != "llama":
        return None
    if factor < 1:
        raise LayoutError(
            f"rotary_scaling={factor} would shrink the range of positions: give a factor above 1."
        )
    return factor


def _recompute(parallel: ParallelConfig) -> dict[str, Any]:
    if parallel.recompute == "none":
        return {}
    if parallel.recompute == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]}
    return {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    }


def _loss_and_gradient_fusion(parallel: ParallelConfig) -> dict[str, Any]:
    wanted = parallel.gradient_accumulation_fusion
    # Transformer Engine's layers have a kernel of their own; the output layer has Apex's alone.
    there = device.is_cuda() and parallel_layers._grad_accum_fusion_available
    if wanted and not there:
        raise LayoutError(
            "gradient_accumulation_fusion needs a GPU and Apex's extension "
            "fused_weight_gradient_mlp_cuda: install apex with it, or remove the key."
        )
    loss = parallel.cross_entropy_fusion
    if loss == "te" and not uses_transformer_engine():
        raise LayoutError(
            "cross_entropy_fusion=te needs a GPU and Transformer Engine: install it, or choose "
            "native or none."
        )
    return {
        "gradient_accumulation_fusion": there if wanted is None else wanted,
        "cross_entropy_loss_fusion": loss != "none",
        "cross_entropy_fusion_impl": "te" if loss == "te" else "native",
    }


def _device_choices() -> dict[str, Any]:
    # The fusions are torch.compile'd functions. On a CPU they save little, and compiling takes
    # longer than a short run.
    fuse = device.is_cuda()
    return {
        "bias_dropout_fusion": fuse,
        "bias_activation_fusion": fuse,
        "apply_rope_fusion": uses_transformer_engine(),
    }


def p2p_options(parallel: ParallelConfig) -> dict[str, bool]:
    """The ``TransformerConfig`` fields that say how pipeline stages talk.

    The interleaved schedule has several messages under way at once. With two stages both neighbours
    are the same rank: in a batch to it they are matched in order, the activation sent forward with
    the gradient received backward, and training goes on with wrong numbers and no error (on NCCL
    and on gloo). One after the other is right with any number of stages. They may overlap with
    computation where streams keep them in order, which NCCL has and gloo has not.
    """
    interleaved = _virtual(parallel) is not None
    return {
        "batch_p2p_comm": not interleaved,
        "overlap_p2p_comm": interleaved and device.is_cuda(),
    }


def _virtual(parallel: ParallelConfig) -> int | None:
    return parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None


def _check_tensor(shape: ModelShape, parallel: ParallelConfig) -> None:
    sizes = [
        (name, getattr(layer, name))
        for layer in dict.fromkeys(shape.layers)
        for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size")
    ]
    sizes.append(("padded_vocab_size", shape.padded_vocab_size))
    if parallel.sequence_parallel:
        if parallel.tensor == 1:
            raise LayoutError("sequence_parallel needs a tensor parallel size above 1.")
        sizes.append(("seq_length", shape.seq_length))
    for name, size in sizes:
        if size % parallel.tensor:
            raise LayoutError(
                f"{name}={size} is not divisible by tensor={parallel.tensor}: "
                "change either, so that every rank holds an equal part."
            )
