from __future__ import annotations

import pytest

from megagrow.growth.width.axes import Axis
from megagrow.growth.width.masks import MASK_TURNS, Mask, mask_of, mask_value
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import model_shape


def test_value_rises_in_its_turn() -> None:
    assert [mask_value(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert [mask_value(step, 4, turn=1) for step in (0, 4, 5, 8, 9)] == [0, 0, 0.25, 1, 1]
    assert MASK_TURNS[Axis.FFN] < MASK_TURNS[Axis.HIDDEN] < MASK_TURNS[Axis.GROUP]
    with pytest.raises(ValueError, match="at least one step"):
        mask_value(0, 0)


def test_masks_cover_new_outputs_and_nothing_else() -> None:
    old, new = model_shape(4, (2, 1, 2, 6)), model_shape(6, (4, 2, 2, 6))

    def mask(role: Role) -> Mask | None:
        return mask_of(TensorName(role=role, layer=0), old, new)

    hidden = Mask(axis=Axis.HIDDEN, old=4, new=6)
    for role in (Role.TOKEN_EMBEDDING, Role.FINAL_NORM, Role.MLP_NORM, Role.DOWN):
        assert mask(role) == hidden
    assert mask(Role.QUERY) == Mask(axis=Axis.QUERY, old=4, new=8)
    assert mask(Role.VALUE) == Mask(axis=Axis.GROUP, old=2, new=4)
    for role in (Role.OUTPUT, Role.UP, Role.QUERY_NORM):
        assert mask(role) is None
    assert mask_of(TensorName(role=Role.DOWN, layer=0, bias=True), old, new) is None
