"""Model and optimizer state <-> megatron-core's distributed checkpoint format.

Every tensor is stored whole under a key that holds its global layer number, so a checkpoint loads
under any TP, PP and DP, and into a model that has other layers.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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

from megagrow.checkpoint.keys import EXTRA, MASTER, MOMENTS
from megagrow.runtime import device, processes

METADATA: Mapping[str, Any] = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": False,
    "singleton_local_shards": True,
    "chained_optim_avoid_prefix": True,
}
"""How megatron-core names and slices tensors; the only format that survives a layout change. Give
it copies: it notes the current process groups in what it gets."""

TorchAdam = torch.optim.Adam | torch.optim.AdamW

Source = Callable[[str], str | None]
"""The stored tensor that a tensor is read from, by keys; None: from none."""


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
    weights: Source | None = None,
    moments: Source | None = None,
    trained: Callable[[str], bool] = lambda key: True,
) -> None:
    """Fills model and optimizer in place from a checkpoint folder; call on every rank.

    Args:
        model: the target; its `updates` become the optimizer's step count.
        folder: a checkpoint of the same model, or of one that this one grows from.
        weights: where a weight is read from; of none: it stays as it is. Unset: from its own key.
        moments: where a weight's moments are read from, by the weight's key; of none: they are
            zero. Unset: from their own keys.
        trained: whether a stored weight was trained, by its key; others are stored without a
            master weight, which is made from the weight.
    """
    state = _state(model, loading=True)
    slots = list(_slots(state))
    fp32 = _is_fp32(model)
    turns: dict[int, list[tuple[_Slot, str]]] = {}
    times: Counter[str] = Counter()
    for slot in slots:
        origin = slot.origin(weights, moments)
        if slot.prefix == MASTER and origin is not None and (fp32 or not trained(origin)):
            origin = None  # no such master weight is stored
        if origin is not None:
            stored = slot.prefix + origin
            # One load may not name a stored key twice.
            turns.setdefault(times[stored], []).append((slot, stored))
            times[stored] += 1
        elif slot.prefix in MOMENTS:
            slot.container[slot.key] = torch.zeros_like(slot.value.data)
        elif not slot.prefix:
            slot.container[slot.key] = slot.value.data
    own = weights is None and moments is None
    for turn in range(_most(len(turns))):
        _read(turns.get(turn, []), folder, validate=own)
    _derive_masters(slots)
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
    def prefix(self) -> str:
        """What of the optimizer it is; empty: a weight."""
        return next((each for each in (MASTER, *MOMENTS) if self.value.key.startswith(each)), "")

    @property
    def weight(self) -> str:
        """Key of the weight that it is, or belongs to."""
        return str(self.value.key).removeprefix(self.prefix)

    def origin(self, weights: Source | None, moments: Source | None) -> str | None:
        """Key of the stored weight that it is read from, or from whose state."""
        source = moments if self.prefix in MOMENTS else weights
        return self.weight if source is None else source(self.weight)


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


def _most(count: int) -> int:
    """The largest count of all ranks: reading is collective."""
    found = torch.tensor([count], device=device.device())
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
    return int(found.item())


def _derive_masters(slots: Sequence[_Slot]) -> None:
    """Takes master weights that were not read from the weights."""
    found = {slot.value.key: slot.container[slot.key] for slot in slots if not slot.prefix}
    for slot in slots:
        if slot.prefix == MASTER and isinstance(slot.container[slot.key], ShardedBase):
            slot.container[slot.key] = found[slot.weight].float()


def _read(slots: Sequence[tuple[_Slot, str]], folder: str | Path, *, validate: bool) -> None:
    wanted = {
        str(number): replace(cast(Any, slot.value), key=stored)
        for number, (slot, stored) in enumerate(slots)
    }
    strategy = FullyParallelLoadStrategyWrapper(
        get_default_load_sharded_strategy(str(folder)),
        parallel_state.get_data_parallel_group(with_context_parallel=True),
    )
    found = dist_checkpointing.load(
        wanted, str(folder), sharded_strategy=strategy, validate_access_integrity=validate
    )
    for number, (slot, _) in enumerate(slots):
        slot.container[slot.key] = found[str(number)]
