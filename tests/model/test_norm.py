from __future__ import annotations

from typing import Any

import pytest
import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from megagrow.model.norm import LayerNorm, RMSNorm, norm_class


def config(**changes: Any) -> TransformerConfig:
    return TransformerConfig(num_layers=1, hidden_size=24, num_attention_heads=2, **changes)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(RMSNorm, torch.nn.RMSNorm), (LayerNorm, torch.nn.LayerNorm)]
)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_values_and_gradients_are_torchs(ours: Any, theirs: Any, eps: float) -> None:
    norm, reference = ours(config(), 24, eps), theirs(24, eps=eps)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 1.5)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(5, 3, 24) * 2
    grad = torch.randn(5, 3, 24)
    results = []
    for module in (norm, reference):
        leaf = x.clone().requires_grad_()
        y = module(leaf.transpose(0, 1))
        y.backward(grad.transpose(0, 1))
        results.append([y, leaf.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_rms_norm_gradient_is_the_derivative() -> None:
    norm = RMSNorm(config(params_dtype=torch.float64), 6, 1e-3)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(6, dtype=torch.float64, requires_grad=True)

    def apply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(apply, (x, weight))


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_bf16_keeps_its_dtype(kind: Any) -> None:
    norm = kind(config(params_dtype=torch.bfloat16), 24)
    y = norm(torch.randn(2, 24, dtype=torch.bfloat16, requires_grad=True))
    y.sum().backward()
    assert y.dtype == norm.weight.dtype == norm.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("split", [False, True])
def test_parameters_tell_whether_the_sequence_is_split(split: bool) -> None:
    changes = {"sequence_parallel": True, "tensor_model_parallel_size": 2} if split else {}
    for kind in (RMSNorm, LayerNorm):
        for parameter in kind(config(**changes), 24).parameters():
            assert parameter.sequence_parallel is split


def test_the_config_names_the_norm() -> None:
    assert norm_class(config(normalization="RMSNorm")) is RMSNorm
    assert norm_class(config(normalization="LayerNorm")) is LayerNorm
