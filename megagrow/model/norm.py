"""Norms for the layer spec without Transformer Engine, on PyTorch's own kernels.

megatron-core's local spec refuses sequence parallelism in its torch norm; these mark their
parameters instead, so that ``finalize_model_grads`` sums their gradients over the
tensor-parallel ranks, each of which saw its own part of the sequence. They own no sharded
state-dict method: megatron-core's default saves their parameters as replicated, which they are.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """Root-mean-square norm over the last dimension (arXiv 1910.07467), gain only.

    Args:
        config: Gives the parameters' dtype and whether the sequence is split.
        hidden_size: Size of the last dimension.
        eps: Added to the mean of squares.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        _mark(self, config)


class LayerNorm(torch.nn.LayerNorm):
    """Layer norm over the last dimension (arXiv 1607.06450), gain and bias.

    Args:
        config: Gives the parameters' dtype and whether the sequence is split.
        hidden_size: Size of the last dimension.
        eps: Added to the variance.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        _mark(self, config)


def norm_class(config: TransformerConfig) -> type[RMSNorm | LayerNorm]:
    """The norm that ``config.normalization`` names."""
    return RMSNorm if config.normalization == "RMSNorm" else LayerNorm


def _mark(module: torch.nn.Module, config: TransformerConfig) -> None:
    for parameter in module.parameters():
        # The name that megatron-core looks for in finalize_model_grads.
        parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
