"""Differences between megatron-core's expectations and the optimizers in use, in one place.

Nothing here depends on the device: plain ``torch.optim.AdamW`` is what megatron-core takes on a
GPU too when neither Transformer Engine nor Apex is installed.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

from megagrow.runtime import device
from megagrow.runtime.orphans import OpaqueQueue, start_manager

_MARK = "_megagrow_compat"

#: The callables that a training loop hangs into a ``TransformerConfig``.
_CONFIG_CALLBACKS = (
    "finalize_model_grads_func",
    "grad_scale_func",
    "grad_sync_func",
    "no_sync_func",
    "param_sync_func",
    "timers",
)


def install() -> None:
    """Apply the fixes of this module to megatron-core in this process; safe to call again."""
    _keep_adam_steps()
    _save_ranks_that_train_nothing()
    _find_parameters_in_padded_buckets()
    _end_queue_manager_with_process()
    _fail_to_finish_together()


def _fail_to_finish_together() -> None:
    """Let every rank hear that rank 0 could not write a checkpoint's index.

    The last step of a save: rank 0 alone writes ``.metadata`` and then tells the others, who wait
    for it, how the save went. An ``OSError`` there (a full disk) skips the telling, in 0.16.1 and
    0.19.2.
    """
    from megatron.core.dist_checkpointing.strategies import state_dict_saver
    from megatron.core.dist_checkpointing.strategies import torch as strategy
    from torch.distributed.checkpoint.api import CheckpointException, _wrap_exception

    finalize = state_dict_saver.save_state_dict_async_finalize
    if hasattr(finalize, _MARK):
        return

    @functools.wraps(finalize)
    def finalize_and_tell(storage_writer: Any, global_metadata: Any, dist_wrapper: Any) -> None:
        try:
            finalize(storage_writer, global_metadata, dist_wrapper)
        except OSError as error:
            told = torch.ones(1, dtype=torch.int, device=device.device())
            rank = dist_wrapper.coordinator_rank
            torch.distributed.broadcast(told, src=rank, group=dist_wrapper.group)
            raise CheckpointException("write", {rank: _wrap_exception(error)}) from error

    setattr(finalize_and_tell, _MARK, True)
    for module in (state_dict_saver, strategy):  # 0.16 has a name in both, 0.19 in the first
        if hasattr(module, finalize.__name__):
            setattr(module, finalize.__name__, finalize_and_tell)


def _keep_adam_steps() -> None:
    """Make saved optimizer states carry the ``step`` of ``torch.optim.AdamW`` exactly.

    AdamW keeps a 0-dim ``step`` tensor for each parameter and makes its state at the first step.
    megatron-core (seen in 0.16.1 and 0.19.2) does not fit to either:

    - ``DistributedOptimizer.state_dict`` asserts on an optimizer that has not stepped, and it is
      called for loading too; the other optimizers lose a ``step`` of 0: the state that AdamW
      would make is made before.
    - ``DistributedOptimizer._set_main_param_and_optimizer_states`` copies every entry of the
      state, but the reshardable formats keep ``step`` in the parameter groups only, and the load
      ends with ``KeyError: 'step'``: the entry in place is right already and is kept.
    - ``DistributedOptimizer.load_state_dict`` gives all parameters the *same* ``step`` tensor,
      which AdamW then advances once for each parameter in every step: each gets its own.
    """
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
    from megatron.core.optimizer.optimizer import Float16OptimizerWithFloat16Params, FP32Optimizer

    if hasattr(DistributedOptimizer.load_state_dict, _MARK):
        return
    for owner in (DistributedOptimizer, Float16OptimizerWithFloat16Params, FP32Optimizer):
        owner.sharded_state_dict = _with_first(_start_adam, owner.sharded_state_dict)
        owner.load_state_dict = _with_last(_own_adam_steps, owner.load_state_dict)
    set_states = DistributedOptimizer._set_main_param_and_optimizer_states

    @functools.wraps(set_states)
    def set_states_but_step(self: Any, model_param: Any, tensors: dict[str, Any]) -> None:
        if _adam_of(self) is not None and "step" not in tensors:
            group, order = self.model_param_group_index_map[model_param]
            main_param = self.optimizer.param_groups[group]["params"][order]
            tensors = {**tensors, "step": self.optimizer.state[main_param]["step"]}
        set_states(self, model_param, tensors)

    DistributedOptimizer._set_main_param_and_optimizer_states = set_states_but_step


def _save_ranks_that_train_nothing() -> None:
    """Let a pipeline stage whose weights are all frozen save its (empty) optimizer.

    ``DistributedOptimizer.state_dict`` asserts that some parameter has a ``step`` (0.16.1).
    """
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    original = DistributedOptimizer.state_dict
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def state_dict(self: Any) -> Any:
        adam = _adam_of(self)
        if adam is None or adam.state:
            return original(self)
        groups = adam.state_dict()["param_groups"]
        return {
            "optimizer": {
                "param_groups": [
                    {**{key: value for key, value in group.items() if key != "params"}, "step": 0.0}
                    for group in groups
                ]
            }
        }

    setattr(state_dict, _MARK, True)
    DistributedOptimizer.state_dict = state_dict


def _with_first(first: Callable[[Any], None], method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        first(self)
        return method(self, *args, **kwargs)

    setattr(call, _MARK, True)
    return call


def _with_last(last: Callable[[Any], None], method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        last(self)
        return result

    setattr(call, _MARK, True)
    return call


def _adam_of(wrapper: Any) -> torch.optim.Adam | torch.optim.AdamW | None:
    """The optimizer inside megatron-core's ``wrapper``, if it is one of torch's Adams."""
    inner = getattr(wrapper, "optimizer", None)  # none on a stage without trainable parameters
    return inner if isinstance(inner, torch.optim.Adam | torch.optim.AdamW) else None


def _start_adam(wrapper: Any) -> None:
    """Give parameters that never stepped the state AdamW makes at their first step."""
    adam = _adam_of(wrapper)
    if adam is None:
        return
    for group in adam.param_groups:
        for parameter in group["params"]:
            state = adam.state[parameter]
            if not state:
                state["step"] = _zero_step(group, parameter)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)


def _own_adam_steps(wrapper: Any) -> None:
    """Give each parameter a ``step`` tensor that no other one shares."""
    adam = _adam_of(wrapper)
    if adam is None:
        return
    for group in adam.param_groups:
        for parameter in group["params"]:
            state = adam.state[parameter]
            if "step" in state:
                state["step"] = torch.as_tensor(state["step"], dtype=torch.float32).clone()
            elif state:
                state["step"] = _zero_step(group, parameter)


def _zero_step(group: dict[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    # torch.optim.Adam keeps the step on the host unless a kernel has to read it.
    on_device = group.get("fused") or group.get("capturable")
    return torch.zeros((), dtype=torch.float32, device=parameter.device if on_device else "cpu")


def _find_parameters_in_padded_buckets() -> None:
    """Make ``fully_reshardable`` checkpoints save each parameter's own optimizer state.

    ``sharded_param_state_fully_reshardable`` (0.16.1 and 0.19.2) cuts parameters by their place
    in the gradient buffer, where every bucket is padded at its end, out of a tensor that
    ``get_parameter_state_dp_zero`` has put together *without* that padding. From the second
    bucket on, what is saved is shifted: with several buckets (overlapped reduction), or a tied
    embedding on a pipeline stage (a bucket of its own), unless all bucket sizes happen to be
    multiples of 128 x data-parallel size. Put the padding back before it cuts.
    """
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    original = DistributedOptimizer.sharded_param_state_fully_reshardable
    if hasattr(original, _MARK):
        return
    get_state = DistributedOptimizer.get_parameter_state_dp_zero

    @functools.wraps(original)
    def with_padding(self: Any, *args: Any, **kwargs: Any) -> Any:
        def get_padded_state(*inner_args: Any, **inner_kwargs: Any) -> Any:
            states = get_state(self, *inner_args, **inner_kwargs)
            if states is not None:  # None on ranks that do not save
                for index, buffer in enumerate(self.buffers):
                    for tensors in states[index].values():
                        _pad_buckets(buffer, tensors)
            return states

        self.get_parameter_state_dp_zero = get_padded_state  # shadows the method for this call
        try:
            return original(self, *args, **kwargs)
        finally:
            del self.get_parameter_state_dp_zero

    setattr(with_padding, _MARK, True)
    DistributedOptimizer.sharded_param_state_fully_reshardable = with_padding


def _pad_buckets(buffer: Any, tensors: dict[str, Any]) -> None:
    """Spread each buffer-wide tensor of ``tensors`` to the places its buckets have in ``buffer``.

    Replaces the entries one by one, so that memory holds one extra tensor at most.
    """
    for key, packed in tensors.items():
        if not isinstance(packed, torch.Tensor) or packed.numel() == buffer.numel:
            continue
        padded = packed.new_zeros(buffer.numel)
        offset = 0
        for bucket in buffer.buckets:
            size = bucket.numel_unpadded
            padded[bucket.offset : bucket.offset + size] = packed[offset : offset + size]
            offset += size
        tensors[key] = padded


def _end_queue_manager_with_process() -> None:
    """Make checkpoint saving use a queue manager that a killed process does not leave behind."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    # 0.16 and 0.19 name the function differently, and keep its queue under the same name.
    for name in ("_get_write_results_queue", "get_write_results_queue"):
        if hasattr(filesystem_async, name):
            setattr(filesystem_async, name, _write_results_queue)


def _write_results_queue(_mode: str = "spawn") -> Any:
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if filesystem_async._results_queue is None:
        manager = start_manager(multiprocessing.get_context("spawn"))
        filesystem_async._results_queue = OpaqueQueue(manager)
    return filesystem_async._results_queue


def release(chunks: Iterable[torch.nn.Module]) -> None:
    """Make a model wrapped in megatron-core's ``DistributedDataParallel`` collectable.

    Without this, dropping the last reference frees nothing: each gradient hook holds the
    wrapper, the wrapper's configuration holds the optimizer, its fp32 shards are views whose
    autograd nodes hold the hooks, and Python's collector cannot see through such nodes. A job
    that grows would keep every model it ever had, with its optimizer state and communicators.

    Call it on all chunks, drop your references to model and optimizer, then
    ``groups.tear_down()``. The model cannot be trained afterwards; its weights can be read.
    """
    for chunk in chunks:
        config: Any = chunk.config
        for name in _CONFIG_CALLBACKS:
            if hasattr(config, name):
                setattr(config, name, None)
        for parameter in chunk.parameters():
            parameter.__dict__.pop("main_param", None)
        accumulators: Any = chunk.grad_accs
        accumulators.clear()


def stop_checkpoint_helpers() -> None:
    """End the queue-manager process that the first ``dist_checkpointing`` save started.

    megatron-core keeps it for the life of the process. It inherits this process's pipes, so
    whoever waits for them to close (a shell, a CI job, a test) would wait for it too.
    """
    module = sys.modules.get("megatron.core.dist_checkpointing.strategies.filesystem_async")
    queue = getattr(module, "_results_queue", None)
    if module is None or queue is None:
        return
    setattr(module, "_results_queue", None)  # noqa: B010 - the module is not typed
    queue.close()
