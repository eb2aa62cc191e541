from __future__ import annotations

from hypothesis import given

from megagrow.growth.ligo.kinds import kinds
from megagrow.model.tensors import Role, tensor_names
from tests.growth.ligo.shapes import Pair, pairs
from tests.growth.width.reference import model_shape


@given(pairs())
def test_every_tensor_of_a_model_is_of_one_kind(pair: Pair) -> None:
    for shape in pair:
        listed = [name for kind in kinds(shape) for name in kind.names(shape)]
        assert len(set(listed)) == len(listed)
        assert set(listed) == set(tensor_names(shape))
    assert kinds(pair[0]) == kinds(pair[1])
    assert len({kind.key for kind in kinds(shape)}) == len(kinds(shape))


def test_kinds_of_a_llama_are_nine_in_layers_and_three_outside() -> None:
    found = kinds(model_shape(4, *[(2, 1, 2, 4)] * 3))
    assert [kind.role for kind in found if not kind.layered] == [
        Role.TOKEN_EMBEDDING,
        Role.FINAL_NORM,
        Role.OUTPUT,
    ]
    assert len(found) == 12
    assert not any(kind.bias for kind in found)
