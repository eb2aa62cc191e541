from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megagrow.growth.ligo.kinds import kinds
from megagrow.growth.ligo.operator import Ligo
from megagrow.growth.ligo.settings import LIGO, PRTS, LigoSettings
from megagrow.model.shape import ModelShape
from tests.growth.ligo.reference import reference
from tests.growth.ligo.shapes import grown
from tests.growth.width.reference import Model, logits, model_shape, random_model, tokens

PAIRS = {
    "llama, GQA, untied": (
        model_shape(6, *[(4, 2, 2, 7)] * 2),
        model_shape(10, *[(8, 4, 2, 9)] * 4),
    ),
    "llama, MHA to GQA, tied, norms": (
        model_shape(6, *[(2, 2, 4, 7)] * 2, tied=True, qk_norm=True, qkv_bias=True),
        model_shape(8, *[(6, 3, 4, 7)] * 3, tied=True, qk_norm=True, qkv_bias=True),
    ),
    "gpt2, longer heads": (
        model_shape(6, *[(2, 1, 2, 7)] * 2, style="gpt2", tied=True),
        model_shape(9, *[(4, 1, 3, 9)] * 4, style="gpt2", tied=True),
    ),
    "llama, depth alone": (
        model_shape(6, *[(4, 2, 2, 7)] * 2),
        model_shape(6, *[(4, 2, 2, 7)] * 6),
    ),
}


def loss(model: Model, shape: ModelShape, step: int) -> Tensor:
    """Next-token loss on the batch of a step."""
    batch = tokens(shape, seed=step)
    found = logits(model, shape)[:, :-1].flatten(0, 1)
    return F.cross_entropy(found, batch[:, 1:].flatten())


def adam(parameters: list[Tensor]) -> torch.optim.Adam:
    # Some gradients are 0 but for rounding, as that of a key's bias: a step must not blow that up.
    return torch.optim.Adam(parameters, lr=1e-2, eps=1e-3)


@pytest.mark.parametrize("how", [PRTS, LIGO], ids=["prts", "ligo"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_two_phases_train_as_autograd_through_the_whole_model_does(
    pair: tuple[ModelShape, ModelShape], how: LigoSettings
) -> None:
    old, new = pair
    ligo = Ligo(old, new, how, seed=3)
    model = random_model(old, 0)
    whole = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in ligo.named_parameters()
    }
    start = {name: parameter.detach().clone() for name, parameter in whole.items()}
    ours, theirs = adam(list(ligo.parameters())), adam(list(whole.values()))
    for step in range(3):
        theirs.zero_grad()
        expected = loss(reference(whole, model, old, new), new, step)
        expected.backward()
        theirs.step()

        ours.zero_grad()
        found = two_phase_gradient(ligo, model, step)
        ours.step()
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    for name, parameter in ligo.named_parameters():
        torch.testing.assert_close(parameter.detach(), whole[name].detach(), rtol=1e-4, atol=1e-5)
        assert not torch.equal(parameter, start[name]), name


def two_phase_gradient(ligo: Ligo, model: Model, step: int) -> Tensor:
    """The gradient of the grown model, then, kind by kind, that of the matrices; the loss."""
    with torch.no_grad():
        leaves = {name: each.clone() for name, each in grown(ligo, model).items()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    found = loss(leaves, ligo.new, step)
    found.backward()
    for kind in kinds(ligo.old):
        if ligo.reads(kind.role, kind.bias):
            old = [model[name] for name in kind.names(ligo.old)]
            gradients = [leaves[name].grad for name in kind.names(ligo.new)]
            torch.autograd.backward(ligo.grow(kind.role, kind.bias, old), gradients)
    return found.detach()
