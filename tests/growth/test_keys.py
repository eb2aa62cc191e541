from __future__ import annotations

import pytest

from megagrow.growth.keys import is_residual_output, layer_of, moment_source, weight_source
from megagrow.growth.moments import COPY, RESET, MomentPolicy
from megagrow.growth.plan import copy_plan
from megagrow.growth.trained import trains

KEY = "decoder.layers.{}.self_attention.linear_qkv.weight"
EMBEDDING = "embedding.word_embeddings.weight"


def test_the_source_of_a_tensor_is_the_same_tensor_of_the_copied_layer() -> None:
    source = weight_source(copy_plan("any", 8, [7] * 11 + [3, None]))
    assert source(KEY.format(11)) == KEY.format(3)
    assert source(KEY.format(12)) is None
    assert source("layers.0.norm.bias") == "layers.7.norm.bias"
    assert source(EMBEDDING) == EMBEDDING


def test_moments_come_along_or_stay_zero() -> None:
    plan = copy_plan("any", 2, [0, 1, 0])
    weights = weight_source(plan)
    assert moment_source(plan, RESET, weights) is None
    assert moment_source(plan, COPY, weights) is weights
    kept = moment_source(plan, MomentPolicy(kept=True, copied=False), weights)
    assert kept is not None
    assert [kept(KEY.format(layer)) for layer in range(3)] == [KEY.format(0), KEY.format(1), None]
    assert kept(EMBEDDING) == EMBEDDING


def test_what_a_key_says() -> None:
    assert (layer_of(KEY.format(12)), layer_of(EMBEDDING)) == (12, None)
    outputs = [
        "decoder.layers.1.mlp.linear_fc2.bias",
        "decoder.layers.1.self_attention.linear_proj.weight",
    ]
    assert all(map(is_residual_output, outputs))
    assert not is_residual_output(KEY.format(1))


@pytest.mark.parametrize(
    ("trainable", "tied", "trained"),
    [
        ("all", False, [True] * 5),
        ("new", True, [False, True, False, False, False]),
        ("new_and_head", False, [False, True, True, True, False]),
        ("new_and_head", True, [False, True, True, True, True]),
    ],
)
def test_which_weights_are_trained(trainable: str, tied: bool, trained: list[bool]) -> None:
    keys = [KEY.format(0), KEY.format(1), "decoder.final_layernorm.weight", "output_layer.weight"]
    found = trains(trainable, {1}, tied=tied)  # type: ignore[arg-type]
    assert [found(key) for key in (*keys, EMBEDDING)] == trained
