"""Model and optimizer state <-> megatron-core's distributed checkpoint format.

Every tensor is stored whole under a key that holds its global layer number, so a checkpoint loads
under any TP, PP and DP, and, with a growth plan, into a deeper model.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.dict_utils import nested_items_iter
from megatron.core.dist_checkpointing.mapping import (
    LocalNonpersistentObject,
    ShardedBase,
)
from megatron.core.dist_checkpointing.serialization import (
    get_default_load_sharded_strategy,
    get_default_save_sharded_strategy,
)
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelLoadStrategyWrapper,
    FullyParallelSaveStrategyWrapper,
)
from megatron.core.dist_checkpointing.utils import apply_prefix_mapping
from megatron.core.optimizer import MegatronOptimizer

from megagrow.growth.keys import LAYER, source_key
from megagrow.growth.plan import GrowthPlan
from megagrow.runtime import processes

METADATA: Mapping[str, Any] = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": False,
    "singleton_local_shards": True,
    "chained_optim_avoid_prefix": True,
}
"""How megatron-core names and slices tensors; the only format that survives a layout change. Give
it copies: it notes the current process groups in what it gets."""

MOMENTS = ("optimizer.state.exp_avg.", "optimizer.state.exp_avg_sq.")
MASTER = "optimizer.state.param."
"""Key of the fp32 master weights, whatever the optimizer's class, so that a stage may shard its
optimizer and the next one not. Stored in bf16 only: in fp32 they are the weights."""

EXTRA = "_extra_state"
"""End of the keys of Transformer Engine's fp8 statistics: empty in bf16 and fp32, and left out, so
that a checkpoint loads with it and without it."""

TorchAdam = torch.optim.Adam | torch.optim.AdamW


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """What is saved and loaded."""

    chunks: Sequence[torch.nn.Module]
    """Model chunks of this rank, without their DistributedDataParallel wrapper."""

    optimizer: MegatronOptimizer
    """Their optimizer."""

    updates: int
    """Optimizer steps since its moments were zero."""


def save(model: TrainedModel, folder: str | Path) -> None:
    """Writes weights, master weights and moments to an empty folder; call on every rank."""
    save_request(model, folder).execute_sync()


def save_request(model: TrainedModel, folder: str | Path) -> AsyncRequest:
    """What `save` does, ready to be executed or scheduled on an `AsyncCallsQueue`."""
    strategy = FullyParallelSaveStrategyWrapper(
        get_default_save_sharded_strategy(),
        parallel_state.get_data_parallel_group(with_context_parallel=True),
    )
    # 0.19 would hand the request to the package nvidia-resiliency-ext unless told not to.
    knows = "async_strategy" in inspect.signature(dist_checkpointing.save).parameters
    state = _state(model, loading=False)
    fp32 = _is_fp32(model)
    for container, key, value in list(nested_items_iter(state)):
        if isinstance(value, ShardedBase) and (
            value.key.endswith(EXTRA) or (fp32 and value.key.startswith(MASTER))
        ):
            del container[key]
    request: AsyncRequest = dist_checkpointing.save(
        state,
        str(folder),
        sharded_strategy=strategy,
        async_sharded_save=True,
        **({"async_strategy": "mcore"} if knows else {}),
    )
    request.finalize_fns[-1] = functools.partial(_tell_all, request.finalize_fns[-1])
    return request


def _tell_all(write_format: Callable[[], None]) -> None:
    """Raises on all ranks what keeps rank 0 from writing `metadata.json`.

    megatron-core's function lets the others wait for it in a barrier (0.16.1, 0.19.2).
    """
    refused: OSError | None = None
    try:
        write_format()
    except OSError as error:
        refused = error
        torch.distributed.barrier()
    refused = processes.broadcast_object(refused)
    if refused is not None:
        raise refused


def load(
    model: TrainedModel,
    folder: str | Path,
    *,
    growth: GrowthPlan | None = None,
    moments: Literal["copy", "reset"] = "copy",
) -> None:
    """Fills model and optimizer in place from a checkpoint folder; call on every rank.

    Args:
        model: the target; its `updates` become the optimizer's step count.
        folder: a checkpoint of the same model, or of the one `growth` starts from.
        growth: which stored layer each layer reads; None reads the layer of the same number.
        moments: `reset` leaves Adam's moments zero, whatever the checkpoint holds.
    """
    state = _state(model, loading=True)
    slots = list(_slots(state))
    if moments == "reset":
        slots = [slot for slot in slots if not _zero_if_moment(slot)]
    masters: list[_Slot] = []
    if _is_fp32(model):
        masters = [slot for slot in slots if slot.value.key.startswith(MASTER)]
        slots = [slot for slot in slots if not slot.value.key.startswith(MASTER)]
    turns = _turns(growth)
    for turn in range(max(turns.values(), default=0) + 1):
        _read([slot for slot in slots if turns.get(slot.layer, 0) == turn], folder, growth)
    weights = {slot.value.key: slot.container[slot.key] for slot in slots}
    for slot in masters:
        slot.container[slot.key] = weights[slot.value.key.removeprefix(MASTER)]
    for index, chunk in enumerate(model.chunks):
        chunk.load_state_dict(state[f"model{index}"], strict=True)
    inner = state["optimizer"].get("optimizer", state["optimizer"])
    if "state" in inner and all(isinstance(adam, TorchAdam) for adam in _adams(model.optimizer)):
        # Optimizers that are not distributed: torch asks for a step where its fused kin refuse one.
        inner["state"]["common_step"] = torch.zeros(())
    model.optimizer.load_state_dict(state["optimizer"])
    set_updates(model.optimizer, model.updates)


def prepare(optimizer: MegatronOptimizer) -> None:
    """Gives every parameter its (zero) Adam state at once.

    So it can be saved, loaded and measured before the first step.
    """
    for part in cast(list[Any], optimizer.chained_optimizers):
        if getattr(part, "is_stub_optimizer", False):
            continue
        part.init_state_fn(part.optimizer, part.config)
        if isinstance(part.optimizer, TorchAdam):
            for state in part.optimizer.state.values():
                # On the device, as the fused AdamW wants it.
                state.setdefault("step", torch.zeros((), device=state["exp_avg"].device))


def set_updates(optimizer: MegatronOptimizer, updates: int) -> None:
    """Sets the step count of Adam's bias correction.

    torch's AdamW keeps it with every parameter; the fused Adams of Transformer Engine and Apex keep
    it in the parameter groups, from their first step on, and megatron-core does not carry it over
    to one that has not stepped (0.16.1, 0.19.2).
    """
    for adam in _adams(optimizer):
        for state in adam.state.values() if isinstance(adam, TorchAdam) else ():
            state["step"].fill_(updates)
        for group in adam.param_groups:
            group.pop("step", None)  # megatron-core notes torch's there, too
            if updates and group["params"] and not isinstance(adam, TorchAdam):
                group["step"] = updates


def _adams(optimizer: MegatronOptimizer) -> list[torch.optim.Optimizer]:
    parts = cast(list[Any], optimizer.chained_optimizers)
    return [part.optimizer for part in parts if not getattr(part, "is_stub_optimizer", False)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """One sharded tensor or object inside the nested state."""

    container: dict[Any, Any] | list[Any]
    key: Any
    value: ShardedBase

    @property
    def layer(self) -> int | None:
        match = LAYER.search(self.value.key)
        return int(match["layer"]) if match else None


def _state(model: TrainedModel, *, loading: bool) -> dict[str, Any]:
    state: dict[str, Any] = {
        f"model{index}": cast(Any, chunk).sharded_state_dict(metadata=dict(METADATA))
        for index, chunk in enumerate(model.chunks)
    }
    # The optimizer finds the key and slice of its tensors in the model's state.
    state["optimizer"] = model.optimizer.sharded_state_dict(
        dict(state), is_loading=loading, metadata=dict(METADATA)
    )
    # What optimizers that are not distributed call it.
    apply_prefix_mapping(state["optimizer"], {"optimizer.state.fp32_param.": MASTER})
    return state


def _is_fp32(model: TrainedModel) -> bool:
    return all(
        parameter.dtype == torch.float32
        for chunk in model.chunks
        for parameter in chunk.parameters()
    )


def _slots(container: Any) -> Iterator[_Slot]:
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(items):
        if isinstance(value, ShardedBase) and value.key.endswith(EXTRA):
            container[key] = value.data
        elif isinstance(value, ShardedBase):
            yield _Slot(container=container, key=key, value=value)
        elif isinstance(value, LocalNonpersistentObject):
            container[key] = value.unwrap()
        elif isinstance(value, dict | list):
            yield from _slots(value)


def _zero_if_moment(slot: _Slot) -> bool:
    if not slot.value.key.startswith(MOMENTS):
        return False
    slot.container[slot.key] = torch.zeros_like(slot.value.data)
    return True


def _turns(growth: GrowthPlan | None) -> dict[int | None, int]:
    """In which of several loads to read each layer: one load may not name a stored key twice."""
    turns: dict[int | None, int] = {}
    seen: dict[int, int] = {}
    for layer, source in enumerate(() if growth is None else growth.layer_map):
        turns[layer] = seen.get(source, 0)
        seen[source] = turns[layer] + 1
    return turns


def _read(slots: list[_Slot], folder: str | Path, growth: GrowthPlan | None) -> None:
    wanted = {str(number): _stored(slot, growth) for number, slot in enumerate(slots)}
    strategy = FullyParallelLoadStrategyWrapper(
        get_default_load_sharded_strategy(str(folder)),
        parallel_state.get_data_parallel_group(with_context_parallel=True),
    )
    found = dist_checkpointing.load(
        wanted, str(folder), sharded_strategy=strategy, validate_access_integrity=growth is None
    )
    for number, slot in enumerate(slots):
        slot.container[slot.key] = found[str(number)]


def _stored(slot: _Slot, growth: GrowthPlan | None) -> ShardedBase:
    """The slot's sharded value under the key it was stored with."""
    layer = slot.layer
    if growth is None or layer is None:
        return slot.value
    key = source_key(slot.value.key, growth.layer_map)
    return cast(ShardedBase, replace(cast(Any, slot.value), key=key))
