from __future__ import annotations

import pytest
import torch

from megagrow.growth.width.double import Double, duplicated, moment_factors
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import grown, logits, model_shape, random_model


def test_blocks_as_in_the_paper() -> None:
    old = model_shape(2, (1, 1, 2, 1), style="gpt2")
    new = model_shape(4, (2, 2, 2, 2), style="gpt2")
    weight = torch.tensor([[1.0, 2.0]])
    wide = Double().widen(TensorName(role=Role.UP, layer=0), weight, old, new)
    assert wide.tolist() == [[1, 2, 0, 0], [0, 0, 1, 2]]
    model = random_model(old, 0)
    wide_model = grown(Double(), model, old, new)
    for bias in (False, True):
        name = TensorName(role=Role.FINAL_NORM, bias=bias)
        assert torch.equal(wide_model[name], model[name].repeat(2) / 2)
    for role in (Role.POSITION_EMBEDDING, Role.OUTPUT):
        name = TensorName(role=role)
        assert torch.equal(wide_model[name], model[name].repeat(1, 2))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_moment_factors_are_what_happens_to_gradients(style: str, tied: bool) -> None:
    """In every value that is not a zero of the block diagonal."""
    options = {"style": style, "tied": tied, "qkv_bias": True, "qk_norm": style == "llama"}
    old = model_shape(4, (4, 2, 2, 3), **options)  # type: ignore[arg-type]
    new = model_shape(8, (8, 4, 2, 6), **options)  # type: ignore[arg-type]
    model = random_model(old, 0, torch.float64)
    generator = torch.Generator().manual_seed(1)
    target = torch.randn((2, 6, 12), generator=generator, dtype=torch.float64)
    gradients = []
    for shape, tensors in ((old, model), (new, grown(Double(), model, old, new))):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        loss = (logits(leaves, shape, 1e-30) - target).square().sum()
        found = torch.autograd.grad(loss, list(leaves.values()))
        gradients.append(dict(zip(leaves, found, strict=True)))
    for name, gradient in gradients[0].items():
        first, second = moment_factors(name)
        placed = duplicated(name, gradient, old)
        there = duplicated(name, torch.ones_like(gradient), old)
        wide = gradients[1][name] * there
        torch.testing.assert_close(wide, placed * first, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(wide**2, placed**2 * second, rtol=1e-7, atol=1e-9)
