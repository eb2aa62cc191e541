"""Which weights are trained, by the keys they have in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.utils import nested_values
from megatron.core.utils import unwrap_model

from megagrow.model.initialisation import KEYS_PER_LAYER

ADDED = "megagrow_added"
"""Attribute of parameters that have a learning rate of their own."""

ADDED_LR_MULT = 2.0
"""`lr_mult` of their parameter groups, only a mark: megatron-core knows groups by it."""


def freeze(chunks: Sequence[torch.nn.Module], trains: Callable[[str], bool]) -> None:
    """Freezes the weights of bare chunks that `trains` says no to, before they are wrapped.

    A frozen weight has no gradient, no place in the gradient buffers and no optimizer state, and
    autograd goes back no further than the lowest weight that is trained.
    """
    for key, parameter in keyed_parameters(chunks):
        if not trains(key):
            parameter.requires_grad_(False)


def mark_added(chunks: Sequence[torch.nn.Module], added: Callable[[str], bool]) -> None:
    """Marks weights, so that the optimizer gives them groups of their own."""
    for key, parameter in keyed_parameters(chunks):
        setattr(parameter, ADDED, added(key))


def keyed_parameters(
    chunks: Sequence[torch.nn.Module],
) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Every parameter of this rank's chunks and its key in a checkpoint."""
    for chunk in chunks:
        state: Any = unwrap_model(chunk).sharded_state_dict(metadata=dict(KEYS_PER_LAYER))
        for entry in nested_values(state):
            if isinstance(entry, ShardedTensor | ShardedTensorFactory) and isinstance(
                entry.data, torch.nn.Parameter
            ):
                yield entry.key, entry.data


def stop_backward(chunks: Sequence[torch.nn.Module], lowest: int) -> None:
    """Keeps the backward pass of a pipeline from going on below the lowest trained layer.

    A pipeline stage asks for the gradient of what it receives, and autograd would carry it through
    frozen layers. Here it goes past them: the stage before gets zeros, which it needs to go on.

    Args:
        chunks: bare chunks; nothing below layer `lowest` is trained, no embedding either.
        lowest: the first trained layer of the model, from 0.
    """
    for chunk in chunks:
        layers: Any = unwrap_model(chunk).decoder.layers
        frozen = [layer for layer in layers if layer.layer_number <= lowest]
        if frozen:
            _bypass(frozen, layers[len(frozen)] if len(frozen) < len(layers) else None)


def _bypass(frozen: Sequence[Any], trained: Any | None) -> None:
    """Lets gradients pass by `frozen` layers, to the first one's input.

    They come from the input of `trained`, the layer that follows, or else from the output of the
    last frozen one.
    """
    entries: list[torch.Tensor] = []

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs, hidden = _replaced(args, kwargs, torch.Tensor.detach)
        entries[:] = [hidden]
        return args, kwargs

    def leave(hidden: torch.Tensor) -> torch.Tensor:
        entry = entries.pop()
        if not entry.requires_grad:
            return hidden
        passed: torch.Tensor = _PassBy.apply(hidden, entry)  # type: ignore[no-untyped-call]
        return passed

    frozen[0].register_forward_pre_hook(enter, with_kwargs=True)
    if trained is None:
        frozen[-1].register_forward_hook(lambda _, __, output: (leave(output[0]), *output[1:]))
    else:
        trained.register_forward_pre_hook(
            lambda _, args, kwargs: _replaced(args, kwargs, leave)[:2], with_kwargs=True
        )


def _replaced(
    args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any], torch.Tensor]:
    """A layer's arguments with other hidden states, and what these were."""
    if "hidden_states" in kwargs:
        hidden = kwargs["hidden_states"]
        return args, {**kwargs, "hidden_states": change(hidden)}, hidden
    return (change(args[0]), *args[1:]), kwargs, args[0]


class _PassBy(torch.autograd.Function):
    """The identity of `hidden` whose gradient is `entry`'s, and zero."""

    @staticmethod
    def forward(_: Any, hidden: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
        return hidden.view_as(hidden)

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, torch.zeros_like(gradient)
