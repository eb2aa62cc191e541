"""A tiny GPT trained on plain megatron-core, to try what the runtime must carry."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.distributed.finalize_model_grads import finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer

from megagrow.runtime import compat, groups, seeds

VOCAB, SEQUENCE, MICRO_BATCH, MICRO_BATCHES, HIDDEN = 64, 16, 2, 4, 32


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One combination of layout and precision to train with."""

    tensor: int = 1
    pipeline: int = 1
    virtual: int | None = None
    sequence_parallel: bool = False
    distributed_optimizer: bool = True
    bf16: bool = False
    recompute: bool = False
    dropout: float = 0.0
    layers: int = 4
    overlap: bool = False


class SequenceParallelNorm(torch.nn.LayerNorm):
    """A norm that marks its parameters for the sequence-parallel gradient all-reduce."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any):
        super().__init__(hidden_size, eps=eps)
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


@dataclass
class Job:
    """A model under training, with its optimizer."""

    chunks: list[Any]
    optimizer: MegatronOptimizer
    config: TransformerConfig
    trial: Trial


def build(trial: Trial) -> Job:
    """Set the groups up and build the model and its optimizer; the same weights in any layout."""
    groups.set_up(tensor=trial.tensor, pipeline=trial.pipeline, virtual=trial.virtual)
    seeds.seed_step(1, 0)
    config = _transformer_config(trial)
    layer = get_gpt_layer_local_spec()
    layer.submodules.input_layernorm = SequenceParallelNorm
    layer.submodules.pre_mlp_layernorm = SequenceParallelNorm
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=trial.distributed_optimizer,
        overlap_grad_reduce=trial.overlap,
        overlap_param_gather=trial.overlap and trial.distributed_optimizer,
        bucket_size=2000 if trial.overlap else None,
    )
    chunks = []
    for index in range(trial.virtual or 1):
        stage = {} if trial.virtual is None else {"vp_stage": index}
        first = parallel_state.is_pipeline_first_stage(ignore_virtual=False, **stage)
        last = parallel_state.is_pipeline_last_stage(ignore_virtual=False, **stage)
        spec = TransformerBlockSubmodules(
            layer_specs=[layer] * get_num_layers_to_build(config, vp_stage=stage.get("vp_stage")),
            layer_norm=SequenceParallelNorm,
        )
        model = GPTModel(
            config,
            spec,
            VOCAB,
            SEQUENCE,
            pre_process=first,
            post_process=last,
            share_embeddings_and_output_weights=True,
            **stage,
        )
        if trial.bf16:
            model = model.bfloat16()
        chunks.append(
            DistributedDataParallel(config, ddp_config, model, disable_bucketing=index > 0)
        )
    for chunk in chunks:
        _set_weights(chunk, trial)
        chunk.broadcast_params()
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=3e-3,
            weight_decay=0.01,
            bf16=trial.bf16,
            params_dtype=torch.bfloat16 if trial.bf16 else torch.float32,
            use_distributed_optimizer=trial.distributed_optimizer,
            clip_grad=1.0,
        ),
        chunks,
    )
    config.finalize_model_grads_func = finalize_model_grads
    config.grad_scale_func = optimizer.scale_loss
    if trial.overlap:
        config.no_sync_func = [chunk.no_sync for chunk in chunks]
        config.grad_sync_func = [chunk.start_grad_sync for chunk in chunks]
        if len(chunks) == 1:
            config.no_sync_func, config.grad_sync_func = chunks[0].no_sync, None
    return Job(chunks=chunks, optimizer=optimizer, config=config, trial=trial)


def _transformer_config(trial: Trial) -> TransformerConfig:
    return TransformerConfig(
        num_layers=trial.layers,
        hidden_size=HIDDEN,
        num_attention_heads=4,
        ffn_hidden_size=64,
        tensor_model_parallel_size=trial.tensor,
        pipeline_model_parallel_size=trial.pipeline,
        virtual_pipeline_model_parallel_size=trial.virtual,
        sequence_parallel=trial.sequence_parallel,
        params_dtype=torch.bfloat16 if trial.bf16 else torch.float32,
        pipeline_dtype=torch.bfloat16 if trial.bf16 else torch.float32,
        bf16=trial.bf16,
        hidden_dropout=trial.dropout,
        attention_dropout=trial.dropout,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        recompute_granularity="full" if trial.recompute else None,
        recompute_method="uniform" if trial.recompute else None,
        recompute_num_layers=1 if trial.recompute else None,
        # megagrow.model.transformer_config.p2p_options says why.
        batch_p2p_comm=trial.virtual is None,
    )


def _set_weights(chunk: Any, trial: Trial) -> None:
    numbers = {
        name: module.layer_number
        for name, module in chunk.module.named_modules()
        if isinstance(module, TransformerLayer)
    }
    for name, parameter in chunk.module.named_parameters():
        if parameter.dim() < 2:
            continue
        # The last stage holds its copy of the tied embedding as output_layer.
        name = name.replace("output_layer", "embedding.word_embeddings")
        layer = next((prefix for prefix in numbers if name.startswith(prefix + ".")), "")
        shape = list(parameter.shape)
        if trial.tensor > 1 and getattr(parameter, "tensor_model_parallel", False):
            shape[parameter.partition_dim] *= trial.tensor
        generator = torch.Generator().manual_seed(
            seeds.seed_for(7, name.removeprefix(layer), numbers.get(layer, 0))
        )
        full = torch.randn(shape, generator=generator) * 0.05
        if shape != list(parameter.shape):
            full = full.chunk(trial.tensor, parameter.partition_dim)[
                parallel_state.get_tensor_model_parallel_rank()
            ]
        with torch.no_grad():
            parameter.copy_(full)


def _batches(step: int, trial: Trial) -> Iterator[torch.Tensor]:
    """Micro-batches of a step for this replica: the same global batch in any layout."""
    generator = torch.Generator().manual_seed(step)
    size = groups.data_size()
    rows = torch.randint(VOCAB, (MICRO_BATCHES * MICRO_BATCH, SEQUENCE + 1), generator=generator)
    yield from rows.chunk(size)[groups.data_rank()].split(MICRO_BATCH)


def _loss(mask: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
    loss = output.float().mean()
    # The schedule divides the returned loss in place: keep a copy.
    return loss, {"loss": loss.detach().clone()}


def _forward(batches: Iterator[torch.Tensor], model: Any) -> tuple[torch.Tensor, Any]:
    rows = next(batches)
    positions = torch.arange(SEQUENCE).unsqueeze(0).expand(len(rows), -1)
    output = model(rows[:, :-1].contiguous(), positions, None, labels=rows[:, 1:].contiguous())
    return output, partial(_loss, positions)


def step(job: Job, number: int) -> float:
    """One training step; the mean loss of the global batch (0.0 on stages without a loss)."""
    seeds.seed_step(1, number)
    for chunk in job.chunks:
        chunk.zero_grad_buffer()
    job.optimizer.zero_grad()
    batches = [list(_batches(number, job.trial)) for _ in job.chunks]
    iterators = [iter(each) for each in batches]
    losses = get_forward_backward_func()(
        forward_step_func=_forward,
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=job.chunks if len(job.chunks) > 1 else job.chunks[0],
        num_microbatches=MICRO_BATCHES // groups.data_size(),
        seq_length=SEQUENCE,
        micro_batch_size=MICRO_BATCH,
        forward_only=False,
    )
    done, _, _ = job.optimizer.step()
    assert done
    total = torch.tensor(sum(float(each["loss"]) for each in losses) / MICRO_BATCHES)
    torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group())
    return float(total)


def train(trial: Trial, steps: int = 3) -> list[float]:
    """Build, train ``steps`` steps and give the losses."""
    job = build(trial)
    losses = [step(job, number) for number in range(steps)]
    compat.release(job.chunks)
    return losses


def weights(job: Job) -> list[torch.Tensor]:
    """Copies of this rank's parameters."""
    return [p.detach().clone() for chunk in job.chunks for p in chunk.parameters()]


def _sharded(job: Job, is_loading: bool) -> dict[str, Any]:
    if job.trial.overlap and job.trial.distributed_optimizer and not is_loading:
        # The gather of the last step's parameters waits for the next forward: have it now.
        for chunk in job.chunks:
            chunk.start_param_sync(force_sync=True)
    metadata = {"distrib_optim_sharding_type": "fully_reshardable"}
    state = {f"model{i}": chunk.module.sharded_state_dict() for i, chunk in enumerate(job.chunks)}
    state["optimizer"] = job.optimizer.sharded_state_dict(
        dict(state) if len(job.chunks) > 1 else state["model0"], is_loading, metadata=metadata
    )
    return state


def save(job: Job, folder: str) -> None:
    """Save model and optimizer, and wait until it is on disk."""
    dist_checkpointing.save(_sharded(job, False), folder)


def save_async(job: Job, folder: str) -> AsyncCallsQueue:
    """Start saving model and optimizer; finish with ``maybe_finalize_async_calls(True)``."""
    queue = AsyncCallsQueue()
    options = {}
    if "async_strategy" in inspect.signature(dist_checkpointing.save).parameters:
        options["async_strategy"] = "mcore"  # 0.17 and newer would take an optional package
    request = dist_checkpointing.save(
        _sharded(job, False), folder, async_sharded_save=True, **options
    )
    queue.schedule_async_request(request)
    return queue


def load(job: Job, folder: str) -> None:
    """Load model and optimizer, saved in any layout."""
    state = dist_checkpointing.load(_sharded(job, True), folder)
    for index, chunk in enumerate(job.chunks):
        chunk.module.load_state_dict(state[f"model{index}"])
    job.optimizer.load_state_dict(state["optimizer"])
