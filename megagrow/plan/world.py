"""How many processes a run can use: what every stage's layout and batch ask of the world size."""

from __future__ import annotations

import math
from collections.abc import Iterable

from megagrow.config.schema import ModelConfig, RunConfig, StageConfig
from megagrow.errors import LayoutError
from megagrow.model.layer_scaling import head_multiple
from megagrow.model.shape import model_shape
from megagrow.units import nearest_divisor, nearest_multiple


def world_sizes(config: RunConfig) -> list[int]:
    """Every number of processes that suits all stages, in order; empty if there is none."""
    return [
        size
        for size in _stage_sizes(config.stages[0])
        if all(_fault(stage, size) is None for stage in config.stages)
    ]


def smallest_world_size(config: RunConfig) -> int:
    """The smallest number of processes that suits all stages.

    Raises:
        LayoutError: no number does; names two stages that cannot meet.
    """
    sizes = world_sizes(config)
    if sizes:
        return sizes[0]
    offers = {
        stage.name: _listed(size for size in _stage_sizes(stage) if _fault(stage, size) is None)
        for stage in config.stages
    }
    listed = "; ".join(f"stage {name!r}: {sizes}" for name, sizes in offers.items())
    raise LayoutError(
        "no number of processes suits every stage; change parallel or batch of one of them so that "
        f"they share one ({listed})"
    )


def check_world_size(config: RunConfig, world_size: int) -> None:
    """Refuses a number of processes that some stage cannot use.

    Raises:
        LayoutError: names the first such stage, what does not divide, and the nearest numbers that
            suit the whole run.
    """
    for stage in config.stages:
        fault = _fault(stage, world_size)
        if fault is not None:
            raise LayoutError(f"stage {stage.name!r}: {fault}; {_mend(config, world_size)}")


def check_shapes(config: RunConfig) -> None:
    """Refuses a tensor-parallel size that a layer cannot be split by.

    Raises:
        LayoutError: names the stage, the layer if they differ, and the nearest size.
    """
    for stage in config.stages:
        tensor, model = stage.parallel.tensor, stage.model
        layers = model_shape(model, stage.layers).layers
        widths = [layer.ffn_hidden_size for layer in layers]
        groups = [layer.num_query_groups for layer in layers]
        fits = nearest_divisor(math.gcd(*widths, *groups), tensor)
        for index, layer in enumerate(layers):
            where = f"stage {stage.name!r}"
            where += "" if model.layer_scaling is None else f", layer {index}"
            if widths[index] % tensor:
                raise LayoutError(
                    f"{where}: the FFN width {widths[index]} is not divisible by tensor parallel "
                    f"{tensor}; set {_ffn_mend(model, tensor, widths[index])}, or tensor to {fits}"
                )
            if groups[index] % tensor:
                raise LayoutError(
                    f"{where}: {layer.num_attention_heads} heads in {groups[index]} key/value "
                    f"groups are not divisible by tensor parallel {tensor}; set "
                    f"{_heads_mend(model, tensor)}, or tensor to {fits}"
                )


def _ffn_mend(model: ModelConfig, tensor: int, width: int) -> str:
    scaling = model.layer_scaling
    if scaling is not None and scaling.table is not None and scaling.table.ffn_hidden_size:
        return f"it to {nearest_multiple(tensor, width)} in the table"
    if scaling is not None and scaling.ffn_multipliers is not None:
        return f"layer_scaling.ffn_multiple to {math.lcm(tensor, scaling.ffn_multiple)}"
    return f"model.ffn_hidden_size to {nearest_multiple(tensor, width)}"


def _heads_mend(model: ModelConfig, tensor: int) -> str:
    scaling, heads = model.layer_scaling, model.num_attention_heads
    if scaling is None or scaling.table is not None:
        return f"num_query_groups to a multiple of {tensor}"
    if scaling.queries_per_group is None and model.num_query_groups is not None:
        groups = nearest_multiple(tensor, model.num_query_groups)
        while heads % groups:
            groups += tensor
            if groups > heads:
                return f"num_attention_heads and num_query_groups to multiples of {tensor}"
        given = scaling.head_multiple
        if given is None or given % groups == 0:
            return f"num_query_groups to {groups}"
        multiple = math.lcm(given, groups)
        return f"num_query_groups to {groups} and layer_scaling.head_multiple to {multiple}"
    multiple = math.lcm(head_multiple(model, scaling), (scaling.queries_per_group or 1) * tensor)
    if scaling.qkv_multipliers is None:
        return f"num_attention_heads to {nearest_multiple(multiple, heads)}"
    return f"layer_scaling.head_multiple to {multiple}"


def _stage_sizes(stage: StageConfig) -> list[int]:
    """World sizes at which the stage's data-parallel size divides its micro-batches."""
    shares = stage.batch.global_size // stage.batch.micro_size
    model = stage.parallel.tensor * stage.parallel.pipeline
    return [model * replicas for replicas in range(1, shares + 1) if shares % replicas == 0]


def _fault(stage: StageConfig, world_size: int) -> str | None:
    """Why the stage cannot run on `world_size` processes, if so."""
    parallel, batch = stage.parallel, stage.batch
    model = parallel.tensor * parallel.pipeline
    if world_size < 1 or world_size % model:
        return (
            f"{world_size} processes are no multiple of tensor {parallel.tensor} x pipeline "
            f"{parallel.pipeline} = {model}"
        )
    replicas = world_size // model
    share = batch.micro_size * replicas
    if batch.global_size % share:
        return (
            f"global_size {batch.global_size} is no multiple of micro_size {batch.micro_size} x "
            f"data parallel {replicas} = {share} (nearest global_size: "
            f"{nearest_multiple(share, batch.global_size)})"
        )
    micro_batches = batch.global_size // share
    if parallel.virtual_pipeline > 1 and micro_batches % parallel.pipeline:
        group = share * parallel.pipeline
        return (
            f"the interleaved schedule needs micro-batches divisible by pipeline "
            f"{parallel.pipeline}, and data parallel {replicas} leaves {micro_batches} (nearest "
            f"global_size: {nearest_multiple(group, batch.global_size)})"
        )
    return None


def _mend(config: RunConfig, world_size: int) -> str:
    sizes = world_sizes(config)
    below = [size for size in sizes if size < world_size][-1:]
    above = [size for size in sizes if size > world_size][:1]
    if not sizes:
        return "no number of processes suits every stage"
    return f"start {' or '.join(map(str, below + above))} processes, which suit every stage"


def _listed(sizes: Iterable[int], most: int = 6) -> str:
    known = list(sizes)
    text = ", ".join(map(str, known[:most])) or "none"
    return f"{text}, ..." if len(known) > most else text
