"""The parallel groups of a stage: set up, torn down and set up anew in the same processes."""

from __future__ import annotations

import gc
from datetime import timedelta

import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding

from megagrow.errors import LayoutError
from megagrow.runtime import processes


def set_up(
    *,
    tensor: int = 1,
    pipeline: int = 1,
    virtual: int | None = None,
    timeout_s: float = processes.DEFAULT_TIMEOUT_S,
) -> None:
    """Create megatron-core's process groups; the data-parallel size is what is left.

    Args:
        tensor: Ranks that share each layer.
        pipeline: Stages that the layers are dealt to.
        virtual: Chunks of layers a stage holds (interleaved schedule); None for one.
        timeout_s: Seconds that a collective in these groups waits for a peer.

    Raises:
        LayoutError: the sizes do not fit the number of processes, or groups exist already.
    """
    check(processes.world_size(), tensor=tensor, pipeline=pipeline, virtual=virtual)
    if parallel_state.model_parallel_is_initialized():
        raise LayoutError("parallel groups exist already: call groups.tear_down() first.")
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=virtual,
        distributed_timeout_minutes=timedelta(seconds=timeout_s) / timedelta(minutes=1),
        # megatron-core's optimizers ask for them by default, also to save through host memory.
        create_gloo_process_groups=True,
    )


def ensure(*, tensor: int = 1, pipeline: int = 1, virtual: int | None = None) -> None:
    """Sets groups of these sizes up, unless they are; others are torn down first.

    All ranks must call it at the same point. Errors as `set_up`.
    """
    if parallel_state.model_parallel_is_initialized():
        if sizes() == (tensor, pipeline, virtual):
            if virtual is not None:
                parallel_state.set_virtual_pipeline_model_parallel_rank(0)
            return
        tear_down()
    set_up(tensor=tensor, pipeline=pipeline, virtual=virtual)


def sizes() -> tuple[int, int, int | None]:
    """Tensor, pipeline and virtual pipeline size of the groups there are."""
    virtual = parallel_state.get_virtual_pipeline_model_parallel_world_size()
    return tensor_size(), pipeline_size(), virtual


def check(world_size: int, *, tensor: int, pipeline: int, virtual: int | None = None) -> None:
    """Refuse a layout that ``world_size`` processes cannot hold.

    Raises:
        LayoutError: a size is below 1, the product does not divide ``world_size``, or virtual
            stages are asked for without a pipeline.
    """
    for name, size in (("tensor", tensor), ("pipeline", pipeline), ("virtual", virtual or 1)):
        if size < 1:
            raise LayoutError(f"{name}={size}: a parallel size is at least 1.")
    if world_size % (tensor * pipeline):
        raise LayoutError(
            f"{world_size} processes cannot hold tensor={tensor} x pipeline={pipeline} = "
            f"{tensor * pipeline}: start a multiple of {tensor * pipeline} processes, or choose "
            f"sizes whose product divides {world_size}."
        )
    if virtual is not None and virtual > 1 and pipeline == 1:
        raise LayoutError(
            f"virtual={virtual} needs pipeline parallelism: set pipeline to 2 or more, "
            "or leave virtual out."
        )


def tear_down() -> None:
    """Destroy megatron-core's groups and their communicators; safe when there are none.

    All ranks must call it at the same point, with no communication of those groups pending, and
    after :func:`megagrow.runtime.compat.release` of the models that used them.
    """
    # destroy_model_parallel only forgets the groups; torch keeps each one's sockets and threads
    # (or its NCCL communicator and device memory) until it is destroyed.
    mine = [group for group in parallel_state._global_process_group_list or () if group]
    while mine:
        dist.destroy_process_group(mine.pop())
    parallel_state.destroy_model_parallel()
    # What megatron-core forgets to forget (0.16.1): two names, and (`forget_models`) in a cache
    # every rotary embedding there ever was, each with the group it was made for.
    parallel_state._INTRA_PARTIAL_DATA_PARALLEL_GROUP_WITH_CP = None
    parallel_state._INTRA_PARTIAL_DATA_PARALLEL_GROUP_WITH_CP_GLOO = None
    forget_models()


def forget_models() -> None:
    """Lets go of the models that used the groups, in megatron-core's caches and in cycles.

    A communicator closes with its last reference, and models refer to theirs.
    """
    getattr(RotaryEmbedding.forward, "cache_clear", int)()
    gc.collect()


def tensor_size() -> int:
    """Number of processes that share each layer."""
    return int(parallel_state.get_tensor_model_parallel_world_size())


def tensor_rank() -> int:
    """Which part of each layer this process has, from 0."""
    return int(parallel_state.get_tensor_model_parallel_rank())


def pipeline_rank() -> int:
    """This process's pipeline stage, from 0."""
    return int(parallel_state.get_pipeline_model_parallel_rank())


def pipeline_size() -> int:
    """Number of pipeline stages."""
    return int(parallel_state.get_pipeline_model_parallel_world_size())


def data_rank() -> int:
    """Which replica of the model this process belongs to, from 0."""
    return int(parallel_state.get_data_parallel_rank())


def data_size() -> int:
    """Number of replicas of the model."""
    return int(parallel_state.get_data_parallel_world_size())


def is_first_stage() -> bool:
    """Whether this process holds the embedding (first pipeline stage, any chunk)."""
    return pipeline_rank() == 0


def is_last_stage() -> bool:
    """Whether this process holds the output layer and the loss (last pipeline stage)."""
    return pipeline_rank() == pipeline_size() - 1
