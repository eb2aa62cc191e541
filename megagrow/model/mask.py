"""A mask over the residual branches of new layers that rises from 0 to 1 while training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from megatron.core.utils import unwrap_model


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
