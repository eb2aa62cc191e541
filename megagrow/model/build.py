"""A model shape -> model chunks, their data-parallel wrapper and their optimizer.

The only module that names megatron-core's ``GPTModel``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    distributed_data_parallel,
)
from megatron.core.distributed.finalize_model_grads import finalize_model_grads
from megatron.core.models.gpt import GPTModel, gpt_model
from megatron.core.optimizer import (
    MegatronOptimizer,
    get_megatron_optimizer,
    get_standard_config_overrides,
)
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer.optimizer_config import ParamKey
from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.utils import get_model_config

from megagrow.config.schema import ModelConfig, OptimizerConfig, ParallelConfig
from megagrow.model.shape import ModelShape
from megagrow.model.specs import block_spec
from megagrow.model.trainable import ADDED, ADDED_LR_MULT
from megagrow.model.transformer_config import DTYPES, Precision, transformer_config
from megagrow.runtime import device


class _OneReplica(DistributedDataParallel):
    """Data parallelism over a single replica: the buffers, and nothing to send.

    megatron-core would call collectives over groups of one, which gloo serves by copying the
    buffers: three passes over all parameters in each step.
    """

    def start_grad_sync(self, *_: Any) -> None:
        """Return at once."""

    def finish_grad_sync(self, *_: Any, **__: Any) -> None:
        """Return at once."""

    def start_param_sync(self, *_: Any, **__: Any) -> None:
        """Return at once."""

    def _start_bucket_group_param_sync(self, *_: Any, **__: Any) -> None:
        # What the distributed optimizer of 0.19 calls.
        """Return at once."""


def build_model(
    shape: ModelShape,
    model: ModelConfig,
    parallel: ParallelConfig,
    precision: Precision,
    pipeline_layout: Sequence[int] | None = None,
) -> list[torch.nn.Module]:
    """Build this rank's part of a model, on its device, with weights still to be drawn or loaded.

    Needs parallel groups of the same sizes (:func:`megagrow.runtime.groups.set_up`).

    Args:
        shape: Sizes of the whole model.
        model: Dropout, norm epsilon, rotary base.
        parallel: How the model is spread.
        precision: ``bf16`` or ``fp32``.
        pipeline_layout: Layers of each pipeline chunk; see
            :func:`megagrow.model.transformer_config.transformer_config`.

    Returns:
        The chunks, one per virtual pipeline stage, all with the same config object. Called with
        tokens ``[b, s]``, positions ``[b, s]``, mask ``None`` and ``labels=[b, s]``, the last one
        gives the loss of each token ``[b, s]`` in fp32.

    Raises:
        LayoutError: the sizes do not divide, or the layout does not fit the model.
    """
    config = transformer_config(shape, model, parallel, precision, pipeline_layout)
    stages = [None] if parallel.virtual_pipeline == 1 else list(range(parallel.virtual_pipeline))
    return [_chunk(shape, model, config, stage) for stage in stages]


def wrap_ddp(
    chunks: Sequence[torch.nn.Module],
    parallel: ParallelConfig,
) -> list[DistributedDataParallel]:
    """Wrap chunks for data-parallel training, and tell their config how gradients are reduced.

    Gradients accumulate over micro-batches in ``main_grad``. ``finalize_model_grads``, which the
    schedules call after the last one, scales them by ``1 / data-parallel size`` and sums them
    over the replicas: with a loss divided by the number of micro-batches, as megatron-core's
    schedules do, the result is the mean over the global batch. Nothing is broadcast: initial
    weights are equal by construction, and so are loaded ones.

    Args:
        chunks: From :func:`build_model`. Their shared config's ``finalize_model_grads_func``,
            ``no_sync_func`` and ``grad_sync_func`` are set, as megatron-core expects.
        parallel: Distributed optimizer, the gradients' dtype and buckets, and overlap (there is
            none to be had with one replica).
    """
    alone = parallel_state.get_data_parallel_world_size(with_context_parallel=True) == 1
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=parallel.grad_reduce_in_fp32,
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce and not alone,
        overlap_param_gather=parallel.overlap_param_gather and not alone,
        bucket_size=parallel.ddp_bucket_size,
    )
    config = get_model_config(chunks[0])
    wrapper = _OneReplica if alone else DistributedDataParallel
    with _quiet(distributed_data_parallel):
        wrapped = [
            # Only the first chunk's gradients come last, when no backward is left to hide behind.
            wrapper(config, ddp_config, chunk, disable_bucketing=index > 0)
            for index, chunk in enumerate(chunks)
        ]
    config.finalize_model_grads_func = finalize_model_grads
    config.no_sync_func = config.grad_sync_func = config.param_sync_func = None
    if ddp_config.overlap_grad_reduce:
        config.no_sync_func = _one_or_all([chunk.no_sync for chunk in wrapped])
        config.grad_sync_func = _one_or_all([chunk.start_grad_sync for chunk in wrapped])
    return wrapped


def build_optimizer(
    chunks: Sequence[DistributedDataParallel],
    optimizer: OptimizerConfig,
    parallel: ParallelConfig,
    precision: Precision,
    learning_rate: float = 0.0,
) -> MegatronOptimizer:
    """AdamW over wrapped chunks, with fp32 master weights when they are bf16.

    Args:
        chunks: From :func:`wrap_ddp`, with their weights in place.
        optimizer: Betas, epsilon, weight decay, clipping.
        parallel: Whether the state is sharded over the replicas.
        precision: ``bf16`` or ``fp32``.
        learning_rate: Learning rate of the first step; later ones are set in ``param_groups``.

    Returns:
        The optimizer. Its groups hold all trainable parameters; norms and biases have no weight
        decay.
    """
    settings = MegatronOptimizerConfig(
        optimizer="adam",
        lr=learning_rate,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.beta1,
        adam_beta2=optimizer.beta2,
        adam_eps=optimizer.epsilon,
        clip_grad=optimizer.clip_grad,
        bf16=precision == "bf16",
        params_dtype=DTYPES[precision],
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_param_gather=parallel.overlap_param_gather,
    )
    overrides = get_standard_config_overrides(settings)
    # By `lr_mult` megatron-core tells groups apart in a checkpoint; the rates are set in each step.
    overrides[ParamKey(attr=ADDED)] = {"lr_mult": ADDED_LR_MULT}
    built = get_megatron_optimizer(settings, list(chunks), overrides)
    for group in built.param_groups:
        # megatron-core leaves this to its own scheduler, which is not used here.
        group["weight_decay"] = optimizer.weight_decay * group["wd_mult"]
        if "fused" in group:
            # torch.optim's AdamW (no Apex, no Transformer Engine): one pass over memory, not ten.
            group["fused"] = True
    return built


def _chunk(
    shape: ModelShape, model: ModelConfig, config: TransformerConfig, stage: int | None
) -> torch.nn.Module:
    place: dict[str, Any] = {} if stage is None else {"vp_stage": stage}
    with _quiet(gpt_model):  # 0.19 advises HybridModel; the choice is made here
        chunk = GPTModel(
            config=config,
            transformer_layer_spec=block_spec(config, stage),
            vocab_size=shape.padded_vocab_size,
            max_sequence_length=shape.seq_length,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, **place),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, **place),
            parallel_output=True,
            share_embeddings_and_output_weights=shape.tie_embeddings,
            position_embedding_type="rope" if shape.style == "llama" else "learned_absolute",
            rotary_base=model.rotary_base,
            **place,
        )
    _mark_split_weights(chunk, config)
    chunk.to(device.device())
    wrapped: torch.nn.Module = Float16Module(config, chunk) if config.bf16 else chunk
    return wrapped


def _mark_split_weights(chunk: torch.nn.Module, config: TransformerConfig) -> None:
    # 0.16.1 sets these attributes only while it initialises, which it does not do here. Without
    # them the gradient norm would count a split weight on the first tensor-parallel rank only.
    for name, module in chunk.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or getattr(weight, "tensor_model_parallel", False):
            continue
        gated = config.gated_linear_unit and name.endswith("linear_fc1")
        if isinstance(module, ColumnParallelLinear | VocabParallelEmbedding):
            set_tensor_model_parallel_attributes(weight, True, dim=0, stride=2 if gated else 1)
        elif isinstance(module, RowParallelLinear):
            set_tensor_model_parallel_attributes(weight, True, dim=1, stride=1)


def _one_or_all(functions: list[Any]) -> Any:
    return functions[0] if len(functions) == 1 else functions


@contextmanager
def _quiet(module: ModuleType) -> Iterator[None]:
    logger = logging.getLogger(module.__name__)
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled
