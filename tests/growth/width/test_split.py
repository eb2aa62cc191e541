from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megagrow.errors import ConfigError
from megagrow.growth.width.axes import Axis
from megagrow.growth.width.channels import channels
from megagrow.growth.width.split import Split, shares
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import grown, model_shape, random_model

FINAL_NORM = TensorName(role=Role.FINAL_NORM)


def test_rows_are_copied_and_columns_split_as_in_the_paper() -> None:
    old, new = model_shape(2, (1, 1, 2, 2)), model_shape(4, (1, 1, 2, 4))
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    wide = Split(alpha=0.75).widen(TensorName(role=Role.UP, layer=0), weight, old, new)
    once = [[0.75, 1.5, 0.25, 0.5], [2.25, 3.0, 0.75, 1.0]]
    torch.testing.assert_close(wide, torch.tensor(once + once))
    gain = Split().widen(FINAL_NORM, torch.tensor([1.0, 3.0]), old, new)
    torch.testing.assert_close(gain, torch.tensor([1.0, 3.0, 1.0, 3.0]) * math.sqrt(0.5))
    table = torch.arange(24.0).view(12, 2)
    wide = Split().widen(TensorName(role=Role.TOKEN_EMBEDDING), table, old, new)
    assert torch.equal(wide, torch.cat([table, table], dim=1))


@given(st.integers(1, 9), st.integers(0, 30), st.sampled_from([0.1, 0.3, 0.49, 0.51, 2 / 3, 0.9]))
def test_shares_of_a_channel_sum_to_one_and_differ(size: int, more: int, alpha: float) -> None:
    old, new = model_shape(size, (1, 1, 2, 1)), model_shape(size + more, (1, 1, 2, 1))
    axis = channels(Axis.HIDDEN, None, old, new)
    found = shares(axis, alpha)
    total = torch.zeros(size, dtype=torch.float64).index_add(0, axis.source, found)
    torch.testing.assert_close(total, torch.ones(size, dtype=torch.float64))
    for source in range(size):
        own = found[axis.source == source].tolist()
        assert len(set(own)) == len(own)
        assert own[0] == 1 if len(own) == 1 else True
        if len(own) == 2:
            assert own == pytest.approx([alpha, 1 - alpha])


def test_columns_of_any_width_sum_to_the_old_ones() -> None:
    old = model_shape(5, (4, 2, 2, 3), style="gpt2")
    new = model_shape(7, (10, 5, 2, 8), style="gpt2")
    model = random_model(old, 0, torch.float64)
    wide = grown(Split(alpha=0.6), model, old, new)
    for role, axis in (
        (Role.UP, Axis.HIDDEN),
        (Role.ATTENTION_OUTPUT, Axis.QUERY),
        (Role.DOWN, Axis.FFN),
    ):
        name = TensorName(role=role, layer=0)
        source = channels(axis, 0, old, new).source
        weight = wide[name][: model[name].shape[0]]
        folded = torch.zeros_like(model[name]).index_add(1, source, weight)
        torch.testing.assert_close(folded, model[name])


def test_the_final_norm_carries_the_shares_of_tied_embeddings() -> None:
    old = model_shape(2, (1, 1, 2, 2), style="gpt2", tied=True)
    new = model_shape(4, (1, 1, 2, 2), style="gpt2", tied=True)
    for bias in (False, True):
        name = TensorName(role=Role.FINAL_NORM, bias=bias)
        wide = Split(alpha=0.75).widen(name, torch.tensor([4.0, 8.0]), old, new)
        assert wide.tolist() == [3.0, 6.0, 1.0, 2.0]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_refuses_shares_that_keep_copies_equal_or_empty(alpha: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1 but not"):
        Split(alpha=alpha)
