from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from megagrow.model.activation import SwiGLU


def test_swiglu_is_silu_of_the_first_half_times_the_second() -> None:
    activation = SwiGLU(TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=2))
    x = torch.randn(3, 2, 10)
    torch.testing.assert_close(activation(x), F.silu(x[..., :5]) * x[..., 5:])
    assert torch.autograd.gradcheck(
        activation, torch.randn(3, 8, dtype=torch.double, requires_grad=True)
    )
