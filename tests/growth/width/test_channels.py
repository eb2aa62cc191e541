from __future__ import annotations

import pytest
import torch
from hypothesis import given

from megagrow.growth.width.axes import Axis
from megagrow.growth.width.channels import channels, copied, kept
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import model_shape
from tests.growth.width.shapes import Pair, any_wider


def test_tiles_hidden_and_ffn_channels() -> None:
    old, new = model_shape(2, (1, 1, 2, 3)), model_shape(5, (1, 1, 2, 4))
    hidden = channels(Axis.HIDDEN, None, old, new)
    assert hidden.source.tolist() == [0, 1, 0, 1, 0]
    assert hidden.copy.tolist() == [0, 0, 1, 1, 2]
    assert hidden.count.tolist() == [3, 2, 3, 2, 3]
    assert channels(Axis.FFN, 0, old, new).source.tolist() == [0, 1, 2, 0]
    assert channels(Axis.VOCABULARY, None, old, new).is_identity


@pytest.mark.parametrize(
    ("old", "new", "heads", "groups"),
    [
        ((4, 2), (8, 4), [0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 0, 1]),
        ((4, 2), (8, 2), [0, 1, 0, 1, 2, 3, 2, 3], [0, 1]),
        ((4, 1), (4, 4), [0, 1, 2, 3], [0, 0, 0, 0]),
        ((4, 2), (4, 4), [0, 2, 1, 3], [0, 1, 0, 1]),
        ((2, 2), (6, 3), [0, 0, 1, 1, 0, 0], [0, 1, 0]),
    ],
)
def test_query_heads_follow_their_groups(
    old: tuple[int, int], new: tuple[int, int], heads: list[int], groups: list[int]
) -> None:
    narrow, wide = model_shape(4, (*old, 2, 3)), model_shape(4, (*new, 2, 3))
    query = channels(Axis.QUERY, 0, narrow, wide).source
    assert query.view(-1, 2).tolist() == [[2 * head, 2 * head + 1] for head in heads]
    group = channels(Axis.GROUP, 0, narrow, wide).source
    assert group.view(-1, 2).tolist() == [[2 * index, 2 * index + 1] for index in groups]


@given(any_wider())
def test_every_head_keeps_its_group_and_every_copy_has_its_number(pair: Pair) -> None:
    old, new = pair
    for index, (narrow, wide) in enumerate(zip(old.layers, new.layers, strict=True)):
        query = channels(Axis.QUERY, index, old, new)
        group = channels(Axis.GROUP, index, old, new)
        size = narrow.kv_channels
        heads = query.source.view(-1, size)[:, 0] // size
        groups = group.source.view(-1, size)[:, 0] // size
        places = wide.num_attention_heads // wide.num_query_groups
        per_group = narrow.num_attention_heads // narrow.num_query_groups
        assert (heads // per_group == groups.repeat_interleave(places)).all()
        assert set(heads.tolist()) == set(range(narrow.num_attention_heads))
        for axis in (query, group, channels(Axis.FFN, index, old, new)):
            pairs = set(zip(axis.source.tolist(), axis.copy.tolist(), strict=True))
            assert len(pairs) == len(axis.source)
            assert (axis.copy < axis.count).all()
            assert len(axis.source[axis.copy == 0]) == int(axis.source.max()) + 1


def test_a_longer_head_repeats_its_channels() -> None:
    old = model_shape(2, (2, 2, 2, 1), style="gpt2")
    new = model_shape(2, (2, 2, 4, 1), style="gpt2")
    query = channels(Axis.QUERY, 0, old, new)
    assert query.source.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert query.copy.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert query.count.tolist() == [2] * 8


def test_moments_live_on_where_the_old_channels_do() -> None:
    old, new = model_shape(2, (2, 1, 1, 3)), model_shape(3, (4, 4, 1, 3))
    query, output = (TensorName(role=role, layer=0) for role in (Role.QUERY, Role.ATTENTION_OUTPUT))
    moment = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    # New heads copy the old ones 0, 1, 0, 1.
    assert kept(query, moment, old, new).tolist() == [[1, 2, 0], [3, 4, 0], [0, 0, 0], [0, 0, 0]]
    assert kept(output, moment, old, new).tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0]]


def test_a_part_of_a_tensor_is_refused() -> None:
    old, new = model_shape(2, (1, 1, 2, 3)), model_shape(4, (1, 1, 2, 3))
    up = TensorName(role=Role.UP, layer=0)
    with pytest.raises(ValueError, match=r"is \(2, 2\), expected \(3, 2\): pass it unsplit"):
        copied(up, torch.zeros(2, 2), old, new)
    with pytest.raises(ValueError, match="the FFN axis belongs to a layer"):
        channels(Axis.FFN, None, old, new)
