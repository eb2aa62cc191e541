from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megagrow.growth.ligo.matrices import WIDTHS, depth_matrix, output_matrix, width_matrix
from megagrow.model.shape import ModelShape
from tests.growth.ligo.shapes import Pair, pairs
from tests.growth.width.reference import model_shape

CPU = torch.device("cpu")


@given(st.integers(1, 6), st.integers(0, 20), st.sampled_from(["stack", "stack_noisy"]))
def test_rows_of_d_sum_to_one_and_follow_the_stack(old: int, more: int, init: str) -> None:
    drawn = depth_matrix(old, old + more, init, 0, "query")  # type: ignore[arg-type]
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.sum(dim=1), torch.ones(old + more))
    assert drawn.argmax(dim=1).tolist() == [layer % old for layer in range(old + more)]
    if init == "stack":
        assert set(drawn.flatten().tolist()) <= {0.0, 1.0}
    else:
        # Relative to the largest entry, noise is U(0, 0.03).
        noise = drawn / drawn.max(dim=1, keepdim=True).values
        assert float((noise * (noise < 1)).max()) <= 0.03


def test_noise_in_d_differs_between_kinds_and_seeds() -> None:
    drawn = [
        depth_matrix(3, 6, "stack_noisy", seed, key)
        for seed, key in ((0, "query"), (0, "query"), (0, "key"), (1, "query"))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


@pytest.mark.parametrize("init", ["identity", "rand"])
def test_b_is_the_identity_over_what_is_drawn(init: str) -> None:
    old, new = model_shape(64, (1, 1, 2, 2)), model_shape(256, (1, 1, 2, 2))
    matrix = width_matrix("emb", old, new, init, 0)  # type: ignore[arg-type]
    assert matrix is not None
    assert matrix.dtype == torch.float32
    assert torch.equal(matrix[:64], torch.eye(64))
    added = matrix[64:]
    if init == "identity":
        assert float(added.std()) == pytest.approx(1 / math.sqrt(256), rel=0.03)
        assert abs(float(added.mean())) < 0.003
    else:
        assert float(added.min()) >= 0
        torch.testing.assert_close(added.sum(dim=1), torch.ones(192))


@given(pairs())
def test_b_exists_where_its_axis_grows_and_has_every_old_channel_once(pair: Pair) -> None:
    old, new = pair
    for width in WIDTHS:
        before, after = channels_of(width, old), channels_of(width, new)
        matrix = width_matrix(width, old, new, "identity", 0)
        assert (matrix is None) == (before == after)
        if matrix is not None:
            assert matrix.shape == (after, before)
            ones = (matrix == 1).sum(dim=1) * ((matrix != 0).sum(dim=1) == 1)
            home = ones.nonzero().squeeze(1)
            # A single drawn channel may happen to be 1, but not in practice.
            assert matrix[home].argmax(dim=1).sort().values.tolist() == list(range(before))


def channels_of(width: str, shape: ModelShape) -> int:
    layer = shape.layers[0]
    return {
        "emb": shape.hidden_size,
        "q": layer.num_attention_heads * layer.kv_channels,
        "k": layer.num_query_groups * layer.kv_channels,
        "v": layer.num_query_groups * layer.kv_channels,
        "mlp": layer.ffn_hidden_size,
        "head": layer.kv_channels,
    }[width]


def test_longer_heads_keep_their_channels_in_their_head() -> None:
    old = model_shape(4, (2, 2, 2, 4), style="gpt2")
    new = model_shape(4, (2, 2, 3, 4), style="gpt2")
    matrix = width_matrix("q", old, new, "identity", 0)
    assert matrix is not None
    assert torch.equal(matrix[[0, 1, 3, 4]], torch.eye(4))


def test_more_heads_to_a_group_keep_the_old_ones_in_their_group() -> None:
    old, new = model_shape(4, (2, 2, 2, 4)), model_shape(4, (6, 2, 2, 4))
    matrix = width_matrix("q", old, new, "identity", 0)
    assert matrix is not None
    # Old heads 0 and 1 are the first of three in their groups: new heads 0 and 3.
    assert torch.equal(matrix[[0, 1, 6, 7]], torch.eye(4))


def repeated(layer: tuple[int, int, int]) -> Tensor:
    """R [heads x size, groups x size]: what each head reads of the groups' values."""
    heads, groups, size = layer
    return torch.eye(groups * size).view(groups, size, -1).repeat_interleave(
        heads // groups, dim=0
    ).flatten(0, 1)  # fmt: skip


@given(pairs())
def test_what_heads_read_of_new_values_is_what_they_read_of_old_ones(pair: Pair) -> None:
    old, new = pair
    value = width_matrix("v", old, new, "identity", 0)
    made = output_matrix(value, old, new, CPU)
    before, after = (
        repeated((layer.num_attention_heads, layer.num_query_groups, layer.kv_channels))
        for layer in (old.layers[0], new.layers[0])
    )
    if made is None:
        assert before.shape == after.shape
        return
    if value is None:
        value = torch.eye(before.shape[1])
    torch.testing.assert_close(made @ before, after @ value)


def test_with_a_group_for_each_head_the_outputs_read_by_b_v() -> None:
    old, new = model_shape(4, (2, 2, 2, 4)), model_shape(4, (3, 3, 2, 4))
    value = width_matrix("v", old, new, "rand", 0)
    made = output_matrix(value, old, new, CPU)
    assert made is not None
    assert value is not None
    assert torch.equal(made, value)
