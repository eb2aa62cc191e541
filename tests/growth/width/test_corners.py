from __future__ import annotations

import math

import pytest
import torch

from megagrow.config.schema import InitConfig
from megagrow.growth.width.corners import Random, Zero
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.interface import WidthOperator
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import grown, model_shape, random_model

OLD = model_shape(6, (4, 2, 2, 5), (2, 2, 2, 4), qkv_bias=True)
NEW = model_shape(9, (6, 3, 2, 8), (2, 2, 2, 9), qkv_bias=True)
DRAWS = Draws(seed=3)


@pytest.mark.parametrize("operator", [Zero(draws=DRAWS), Random(draws=DRAWS)])
def test_blocks(operator: WidthOperator) -> None:
    model = random_model(OLD, 0)
    zero = isinstance(operator, Zero)
    for name, wide in grown(operator, model, OLD, NEW).items():
        tensor = model[name]
        if tensor.dim() == 1:
            norm = not name.bias
            factor = math.sqrt(6 / 9) if norm else 1.0
            torch.testing.assert_close(wide[: len(tensor)], tensor * factor)
            assert (wide[len(tensor) :] == (1 if norm else 0)).all()
            continue
        rows, columns = tensor.shape
        assert torch.equal(wide[:rows, :columns], tensor)
        assert (wide[rows:, :columns] == 0).all() == (zero or rows == len(wide))
        if zero and name.role is Role.TOKEN_EMBEDDING:
            assert (wide[:, columns:] == 0).all()
        else:
            assert (wide[:, columns:] != 0).all()


def test_gate_and_query_are_drawn_where_the_hidden_size_stays() -> None:
    new = model_shape(6, (6, 3, 2, 8), (2, 2, 2, 9), qkv_bias=True)
    model = random_model(OLD, 0)
    wide = grown(Zero(draws=DRAWS), model, OLD, new)
    for role in (Role.QUERY, Role.KEY, Role.VALUE, Role.GATE, Role.UP):
        name = TensorName(role=role, layer=0)
        added = wide[name][len(model[name]) :]
        assert len(added)
        assert (added != 0).all() == (role in (Role.QUERY, Role.GATE))


@pytest.mark.parametrize("scheme", ["megatron", "gstack"])
def test_new_blocks_have_the_deviation_of_a_new_model(scheme: str) -> None:
    init = InitConfig(scheme="gstack" if scheme == "gstack" else "megatron", std=0.1)
    old, new = model_shape(4, (1, 1, 2, 4), (1, 1, 2, 4)), model_shape(512, *[(1, 1, 2, 512)] * 2)
    operator = Random(draws=Draws(seed=1, init=init))
    expected = {
        "megatron": {Role.UP: 0.1, Role.DOWN: 0.05},
        "gstack": {Role.UP: math.sqrt(2 / (5 * 512)), Role.DOWN: 1 / (math.sqrt(512) * 2)},
    }[scheme]
    for role, std in expected.items():
        name = TensorName(role=role, layer=1)
        wide = operator.widen(name, torch.zeros(4, 4), old, new)
        assert float(wide.std()) == pytest.approx(std, rel=0.02)
