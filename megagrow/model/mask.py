"""Masks over what growth added that rise from 0 to 1 while training: layers, and channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.utils import unwrap_model

from megagrow.runtime import device, groups


class ResidualMask:
    """Multiplies what masked layers add to the residual stream: x + c (layer(x) - x).

    G_random in depth (arXiv 2405.15319, appendix A, and the authors' code). At 0 a masked layer
    changes nothing, at 1 it is a layer like others and costs nothing more.
    """

    def __init__(self, chunks: Sequence[torch.nn.Module], masked: Collection[int]) -> None:
        """Hooks the mask into bare chunks.

        Args:
            chunks: the model on this rank.
            masked: its masked layers, from 0.
        """
        self.value = 1.0
        """The mask c."""
        for chunk in chunks:
            layers: Any = unwrap_model(chunk).decoder.layers
            for layer in layers:
                if layer.layer_number - 1 in masked:
                    layer.register_forward_hook(self._mix, with_kwargs=True)

    def _mix(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self.value == 1:
            return output
        entry = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        return (torch.lerp(entry, output[0], self.value), *output[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class NewChannels:
    """Which outputs of a kind of module are new."""

    parts: tuple[tuple[bool, ...], ...]
    """For each tensor that the module's weight is made of, end to end, its outputs in order. Each
    is split over the tensor-parallel ranks by itself, as gate and up are."""

    split: bool
    """Whether they are split over the tensor-parallel ranks."""

    turn: int
    """Which of the masks is theirs."""


class ChannelMask:
    """Multiplies outputs that growth in width added by a mask.

    G_random in width (arXiv 2405.15319, appendix A, and the authors' code). At 0 new channels hold
    nothing anywhere, at 1 they are channels like others and cost nothing more.
    """

    def __init__(
        self, chunks: Sequence[torch.nn.Module], masked: Mapping[str, NewChannels]
    ) -> None:
        """Hooks the masks into bare chunks.

        Args:
            chunks: the model on this rank.
            masked: new outputs, by the last name of the modules (`linear_fc1`, `embedding`).
        """
        self.values: tuple[float, ...] = ()
        """The masks, by turn; none: 1."""
        for chunk in chunks:
            for name, module in unwrap_model(chunk).named_modules():
                new = masked.get(name.rpartition(".")[2])
                if new is not None:
                    module.register_forward_hook(self._hook(_mine(new), new.turn))

    def _hook(self, new: torch.Tensor, turn: int) -> Any:
        def multiply(_: Any, __: Any, output: Any) -> Any:
            value = self.values[turn] if self.values else 1.0
            if value == 1:
                return output
            full, *rest = output if isinstance(output, tuple) else (output,)
            mask = torch.ones_like(new, dtype=full.dtype).masked_fill_(new, value)
            return (full * mask, *rest) if isinstance(output, tuple) else full * mask

        return multiply


def _mine(new: NewChannels) -> torch.Tensor:
    """This rank's part of the new outputs: bool [outputs]."""
    parts = [torch.tensor(part) for part in new.parts]
    if new.split:
        size, rank = groups.tensor_size(), groups.tensor_rank()
        parts = [part.chunk(size)[rank] for part in parts]
    return torch.cat(parts).to(device.device())
