"""The optimizer state that this process holds, by the stored tensors it is part of.

Layout and ownership are megatron-core's to decide; they are read off the live objects: a tensor's
place from the model's sharded state dict, as a checkpoint has it, and a shard's from the
distributed optimizer's range map.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Literal, NamedTuple, cast

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import FP32Optimizer

from megagrow.checkpoint.sharded import METADATA, TrainedModel
from megagrow.pipeline.redistribution.ownership import Block, Owned

Kind = Literal["param", "exp_avg", "exp_avg_sq"]
"""fp32 master weights, first and second moment, as torch and megatron-core name them."""

_MOSTLY = 0.95
"""Share of a block of memory that has to be of use for the block to be kept."""

KINDS: tuple[Kind, ...] = ("param", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shards:
    """Everything an optimizer keeps of its tensors here, and the weights it does not have."""

    owned: tuple[Owned, ...]
    """Which runs of elements that are trained; n of them."""

    tensors: dict[Kind, list[torch.Tensor]]
    """[n] flat fp32 tensors of each kind, one for each run. Entries may be deleted to free them."""

    frozen: tuple[Owned, ...] = ()
    """Which runs of elements that are not trained; m of them."""

    frozen_tensors: Sequence[torch.Tensor] = ()
    """[m] flat weights of these, all of one dtype."""


def shards_of(model: TrainedModel) -> Shards:
    """The optimizer state of a live model, in place: writing to its tensors changes the model's.

    After writing, `publish` brings the weights in line with the master weights. Frozen weights are
    whole on every replica.
    """
    places = _places(model.chunks)
    owned: list[Owned] = []
    tensors: dict[Kind, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    for run in _runs(model, places):
        owned.append(run.owned)
        for kind in KINDS:
            flat = run.state[kind].detach().view(-1)
            tensors[kind].append(flat[run.low - run.start : run.high - run.start])
    frozen = [
        (place.block, parameter.detach().view(-1)[place.offset : place.offset + place.block.size])
        for chunk in model.chunks
        for parameter in chunk.parameters()
        if not parameter.requires_grad
        for place in places[id(parameter)]
    ]
    return Shards(
        owned=tuple(owned),
        tensors=tensors,
        frozen=tuple(Owned(block, 0, block.size) for block, _ in frozen),
        frozen_tensors=[weight for _, weight in frozen],
    )


def gradients_of(model: TrainedModel) -> list[torch.Tensor]:
    """For each run of elements of `shards_of(model).owned` its flat gradient, in place.

    Complete once gradients are reduced (`finalize_model_grads`), in the dtype they are reduced in.
    """
    return [
        cast(Any, run.parameter).main_grad.view(-1)[run.low : run.high]
        for run in _runs(model, _places(model.chunks))
    ]


def keep_apart(shards: Shards, kinds: Sequence[Kind], *, replica: int, replicas: int) -> Shards:
    """The shards of `kinds` alone, in memory that the model can be freed without.

    Master weights in bf16, and moments, have memory of their own, which is kept. In fp32 the
    weights are their own masters, inside the model's buffer: unless most of that is this shard,
    as with one replica, they are copied. Of frozen weights each replica keeps an equal part, fp32.
    """
    tensors = {kind: _own(shards.tensors[kind]) for kind in kinds}
    frozen, weights = [], []
    for owned, weight in zip(shards.frozen, shards.frozen_tensors, strict=True):
        low, high = (owned.size * part // replicas for part in (replica, replica + 1))
        if low < high:
            frozen.append(Owned(owned.block, low, high))
            weights.append(weight[low:high].to(torch.float32, copy=True))
    return Shards(owned=shards.owned, tensors=tensors, frozen=tuple(frozen), frozen_tensors=weights)


def publish(model: TrainedModel, wrapped: Sequence[Any]) -> None:
    """Makes the weights of all replicas those of the master weights; call on every rank.

    Args:
        model: whose master weights were written.
        wrapped: its chunks in their DistributedDataParallel.
    """
    gathers = False
    for part in cast(list[Any], model.optimizer.chained_optimizers):
        distributed = isinstance(part, DistributedOptimizer)
        gathers |= distributed
        if not getattr(part, "is_stub_optimizer", False) and hasattr(
            part, "_copy_main_params_to_model_params"
        ):
            part._copy_main_params_to_model_params()
    if gathers:
        for chunk in wrapped:
            chunk.start_param_sync(force_sync=True)


class _Place(NamedTuple):
    block: Block
    offset: int
    """Its first element in the flat parameter."""


class _Run(NamedTuple):
    """Elements of a parameter whose state is held here."""

    owned: Owned
    parameter: torch.nn.Parameter
    low: int
    """First element, counted in the flat parameter."""
    high: int
    """One past the last."""
    start: int
    """First element of the parameter that `state` is about."""
    state: dict[str, torch.Tensor]


def _runs(model: TrainedModel, places: dict[int, list[_Place]]) -> Iterator[_Run]:
    for part in cast(list[Any], model.optimizer.chained_optimizers):
        if getattr(part, "is_stub_optimizer", False):
            continue
        for parameter, start, state in _states(part):
            stop = start + state["param"].numel()
            for block, offset in places[id(parameter)]:
                low, high = max(start, offset), min(stop, offset + block.size)
                if low < high:
                    owned = Owned(block, low - offset, high - offset)
                    yield _Run(owned, parameter, low, high, start, state)


def _places(chunks: Sequence[torch.nn.Module]) -> dict[int, list[_Place]]:
    """The blocks that each parameter (by `id`) is made of, one after another."""
    places: dict[int, list[_Place]] = {}
    for chunk in chunks:
        state = cast(Any, chunk).sharded_state_dict(metadata=dict(METADATA))
        for value in nested_values(state):
            if not isinstance(value, ShardedTensor | ShardedTensorFactory) or value.data is None:
                continue
            whole = value.data
            parts = value.build() if isinstance(value, ShardedTensorFactory) else [value]
            places[id(whole)] = [
                _Place(_block(part), (part.data.data_ptr() - whole.data_ptr()) // whole.itemsize)
                for part in parts
            ]
    return places


def _block(part: ShardedTensor) -> Block:
    shape, offset, extent = part.global_shape, part.global_offset, part.local_shape
    if part.prepend_axis_num or tuple(extent[2:]) != tuple(shape[2:]):
        raise ValueError(f"{part.key}: not a slice of a tensor along its first two dimensions")
    inner = prod(shape[2:])
    rows, columns = extent[0], prod(extent[1:])
    column = offset[1] * inner if len(shape) > 1 else 0
    return Block(part.key, row=offset[0], column=column, rows=rows, columns=columns)


def _states(part: Any) -> Iterator[tuple[torch.nn.Parameter, int, dict[str, torch.Tensor]]]:
    """Each parameter, the first of its elements held here, and their state."""
    if isinstance(part, DistributedOptimizer):
        for parameter in part.model_param_group_index_map:
            start = part._get_model_param_range_map(parameter)["param"].start
            yield parameter, start, part._get_main_param_and_optimizer_states(parameter)
        return
    for parameter, main in _mains(part):
        yield parameter, 0, {"param": main, **part.optimizer.state[main]}


def _mains(part: Any) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
    """Each parameter and its fp32 master, of an optimizer that is not distributed."""
    if isinstance(part, FP32Optimizer):
        for group in part.param_groups:
            yield from zip(group["params"], group["params"], strict=True)
        return
    for models, mains in (
        (part.float16_groups, part.fp32_from_float16_groups),
        (part.fp32_from_fp32_groups, part.fp32_from_fp32_groups),
    ):
        yield from zip(chain(*models), chain(*mains), strict=True)


def _own(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    used: dict[int, int] = defaultdict(int)
    for tensor in tensors:
        used[tensor.untyped_storage().data_ptr()] += tensor.nbytes
    kept = []
    for tensor in tensors:
        storage = tensor.untyped_storage()
        whole = used[storage.data_ptr()] >= _MOSTLY * storage.nbytes()
        kept.append(tensor if whole else tensor.clone())
    return kept
