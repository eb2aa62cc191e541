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
from torch import Tensor


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

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` ``[..., hidden_size]``."""
        if x.is_cuda or x.dtype not in (torch.float32, torch.float64):
            return super().forward(x)
        # On the CPU torch has no fused kernel; autograd through its parts costs 2.6 times this.
        y: Tensor = _RMSNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.flatten(0, -2)
        scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        scale = scale.square_().div_(x.size(-1)).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul(rows, scale).mul_(weight).view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        rows, grad = x.flatten(0, -2), grad.flatten(0, -2)
        product = grad * rows
        grad_weight = torch.mv(product.t(), scale.squeeze(1))
        # d scale / d x = -scale^3 x / h, met by every output of the row.
        shared = torch.mv(product, weight).unsqueeze_(1).mul_(scale.pow(3)).div_(-x.size(-1))
        grad_x = (grad * weight).mul_(scale).addcmul_(rows, shared)
        return grad_x.view_as(x), grad_weight, None


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
