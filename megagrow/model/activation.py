"""SwiGLU for where megatron-core's fused one is not compiled: on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class SwiGLU(MegatronModule):
    """``silu(gate) * up`` (arXiv 2002.05202) of ``[..., 2 f]``, gate first, to ``[..., f]``.

    megatron-core's unfused form adds a zero to ``up`` and keeps ``silu(gate)`` for the backward
    pass; this one reads and keeps only its input.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config=config)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to ``x`` ``[..., 2 f]``."""
        y: Tensor = _SwiGLU.apply(x)  # type: ignore[no-untyped-call]
        return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        grad_x = torch.empty_like(x)
        grad_gate, grad_up = grad_x.chunk(2, dim=-1)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        torch.mul(F.silu(gate), grad, out=grad_up)
        return grad_x
