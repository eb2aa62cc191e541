"""Layer-wise scaling: the published models (arXiv 2509.06518, OpenELM), and its rules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.schema import LayerScalingConfig, LayerTable, ModelConfig
from megagrow.model.flops import parameters
from megagrow.model.layer_scaling import make_divisible, multipliers
from megagrow.model.shape import ModelShape, model_shape

LWS = ModelConfig(
    hidden_size=768, num_attention_heads=12, vocab_size=50304, seq_length=1024, qk_norm=True
)
"""What the seven models of arXiv 2509.06518 have in common."""

# Name, depth, FFN points, heads' points, variant, heads, FFN widths / 256, total and non-embedding
# parameters in millions (the output layer is not an embedding to the authors).
HALVES = [6] * 2 + [9] * 10 + [12] * 6
PUBLISHED: list[tuple[str, int, Any, Any, str, list[int], list[int], float, float]] = [
    ("baseline 12L", 12, (4.0, 4.0), (1.0, 1.0), "vanilla", [12] * 12, [12] * 12, 181.1, 142.5),
    (
        "vanilla 12L", 12, (2.0, 5.3), (0.5, 2.0), "vanilla",
        [6, 9, 9, 12, 12, 15, 15, 18, 18, 21, 21, 24],
        [6, 7, 8, 9, 10, 11, 11, 12, 13, 14, 15, 16], 178.8, 140.1,
    ),
    ("baseline 18L", 18, (2.5, 2.5), (0.75, 0.75), "vanilla", [9] * 18, [8] * 18, 183.5, 144.8),
    (
        "vanilla 18L", 18, (1.0, 4.0), (0.5, 1.0), "vanilla", HALVES,
        [3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12], 179.7, 141.1,
    ),
    (
        "framed 18L", 18, (0.5, 4.0), (0.5, 1.0), "framed", [12, *HALVES[1:]],
        [12, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 8, 9, 10, 10, 11, 11, 12], 179.4, 140.7,
    ),
    (
        "reverse 18L", 18, (4.0, 0.5), (1.0, 0.5), "reverse", [*HALVES[:0:-1], 12],
        [12, 11, 11, 10, 10, 9, 8, 8, 7, 6, 6, 5, 5, 4, 4, 3, 2, 12], 179.4, 140.7,
    ),
    (
        "crown 18L", 18, (0.5, 3.8, 0.5), (0.5, 1.0, 0.5), "crown",
        [12, *[9] * 5, *[12] * 6, *[9] * 5, 12],
        [12, 3, 4, 5, 6, 8, 9, 10, 11, 11, 10, 9, 8, 6, 5, 4, 3, 12], 181.9, 143.3,
    ),
]  # fmt: skip


def scaled(model: ModelConfig = LWS, **keys: Any) -> ModelConfig:
    """`model` with a layer-wise scaling of these keys."""
    shared: dict[str, Any] = {} if keys["variant"] == "table" else {"queries_per_group": 3}
    scaling = LayerScalingConfig(**{**shared, **keys})
    names = ModelConfig.__dataclass_fields__
    return ModelConfig(
        **{**{name: getattr(model, name) for name in names}, "layer_scaling": scaling}
    )


def published(ffn: Any, qkv: Any, variant: str) -> ModelConfig:
    # Every frame is 4.0 and 1.0 in the authors' code: for a crown that is not its largest point.
    frame = None if variant == "vanilla" else (4.0, 1.0)
    return scaled(
        variant=variant, ffn_multipliers=ffn, qkv_multipliers=qkv, frame_multipliers=frame
    )


def heads(shape: ModelShape) -> list[int]:
    return [layer.num_attention_heads for layer in shape.layers]


def widths(shape: ModelShape) -> list[int]:
    return [layer.ffn_hidden_size for layer in shape.layers]


@pytest.mark.parametrize("row", PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_published_models(row: Any) -> None:
    _, depth, ffn, qkv, variant, of_queries, of_ffn, total, non_embedding = row
    shape = model_shape(published(ffn, qkv, variant), depth)
    assert heads(shape) == of_queries
    assert [layer.num_query_groups for layer in shape.layers] == [n // 3 for n in of_queries]
    assert widths(shape) == [256 * units for units in of_ffn]
    # Norms of queries and keys run over whole projections in OLMo 2, over one head here.
    wider_norms = sum((n + n // 3) * 64 - 2 * 64 for n in of_queries)
    ours = parameters(shape)
    assert round((ours.total + wider_norms) / 1e6, 1) == total
    output = ours.embedding // 2
    assert round((ours.non_embedding + output + wider_norms) / 1e6, 1) == non_embedding


OPENELM = [
    (16, 1280, 64, (12, 20), (768, 5120), 271_527_168),
    (20, 1536, 64, (12, 24), (768, 6144), 457_179_136),
    (28, 2048, 64, (16, 32), (1024, 8192), 1_079_891_456),
    (36, 3072, 128, (12, 24), (1536, 12288), 3_036_647_424),
]
"""Depth, width, head dimension, heads and FFN widths of the ends, parameters."""


@pytest.mark.parametrize("row", OPENELM, ids=["270M", "450M", "1.1B", "3B"])
def test_openelm(row: Any) -> None:
    depth, hidden, head, of_queries, of_ffn, total = row
    model = ModelConfig(
        hidden_size=hidden, num_attention_heads=hidden // head, kv_channels=head,
        vocab_size=32000, seq_length=2048, qk_norm=True, tie_embeddings=True,
    )  # fmt: skip
    shape = model_shape(
        scaled(
            model, variant="vanilla", rounding="openelm", ffn_multipliers=(0.5, 4.0),
            qkv_multipliers=(0.5, 1.0), queries_per_group=4,
        ),
        depth,
    )  # fmt: skip
    assert parameters(shape).total == total
    first, last = shape.layers[0], shape.layers[-1]
    assert (first.num_attention_heads, last.num_attention_heads) == of_queries
    assert (first.ffn_hidden_size, last.ffn_hidden_size) == of_ffn
    assert all(layer.num_query_groups * 4 == layer.num_attention_heads for layer in shape.layers)
    assert {layer.kv_channels for layer in shape.layers} == {head}


@pytest.mark.parametrize(
    ("value", "divisor", "paper", "openelm"),
    [
        (10.0, 9, 18, 9),  # the nearest, 9, is exactly 0.9 of it
        (40.0, 9, 45, 36),  # here 36 is
        (11.0, 9, 18, 18),  # 9 is less than 0.9 of it
        (9.5, 9, 9, 9),  # 9 is more
        (13.5, 9, 18, 18),  # half of a multiple goes up
        (27.0, 9, 27, 27),
        (0.1, 9, 9, 9),  # at least one multiple
        (8.9, 9, 9, 9),
        (9.0, 9, 9, 9),
        (700.8, 256, 768, 768),  # a layer of the published crown
    ],
)
def test_rounding_at_its_edges(value: float, divisor: int, paper: int, openelm: int) -> None:
    assert make_divisible(value, divisor, "paper") == paper
    assert make_divisible(value, divisor, "openelm") == openelm


def test_rounding_is_part_of_the_model() -> None:
    model = ModelConfig(hidden_size=10, num_attention_heads=1, vocab_size=10, seq_length=8)
    for rounding, width in (("paper", 18), ("openelm", 9)):
        keys = {"ffn_multipliers": (1.0, 1.0), "ffn_multiple": 9, "rounding": rounding}
        shape = model_shape(scaled(model, variant="vanilla", queries_per_group=1, **keys), 2)
        assert widths(shape) == [width] * 2


@pytest.mark.parametrize(
    ("points", "depth", "values"),
    [
        ((1.0, 2.0), 4, (1.0, 1.33, 1.67, 2.0)),
        ((2.0, 3.35), 3, (2.0, 2.68, 3.35)),  # numpy's rounding of 2.675, as in both codes
        ((2.0, 1.0), 2, (2.0, 1.0)),
        ((1.0, 2.0), 1, (1.0,)),
        ((1.0, 3.0, 2.0), 5, (1.0, 2.0, 3.0, 2.5, 2.0)),
        ((1.0, 3.0, 2.0), 6, (1.0, 2.0, 3.0, 3.0, 2.5, 2.0)),
        ((1.0, 3.0, 2.0), 4, (1.0, 3.0, 3.0, 2.0)),
        ((1.0, 3.0, 2.0), 3, (1.0, 3.0, 2.0)),
        ((1.0, 3.0, 2.0), 2, (3.0, 3.0)),  # both are middle layers
        ((1.0, 3.0, 2.0), 1, (3.0,)),
        ((0.0, 1.0, 0.0), 8, (0.0, 1 / 3, 2 / 3, 1.0, 1.0, 2 / 3, 1 / 3, 0.0)),  # unrounded
    ],
)
def test_multipliers(points: tuple[float, ...], depth: int, values: tuple[float, ...]) -> None:
    assert multipliers(points, depth) == pytest.approx(values)
    assert multipliers(points, depth)[depth // 2] == values[depth // 2]
    assert multipliers(points, depth, frame=9.0)[1:-1] == pytest.approx(values[1:-1])
    assert multipliers(points, depth, frame=9.0)[0] == 9.0
    assert multipliers(points, depth, frame=9.0)[-1] == 9.0


@pytest.mark.parametrize(
    ("keys", "ends"),
    [
        ({"variant": "vanilla"}, (1, 3)),
        ({"variant": "vanilla", "framed": True}, (3, 3)),
        ({"variant": "framed"}, (3, 3)),
        ({"variant": "framed", "framed": False}, (1, 3)),
        ({"variant": "framed", "frame_multipliers": (5.0, 1.0)}, (5, 5)),
    ],
)
def test_frames(keys: dict[str, Any], ends: tuple[int, int]) -> None:
    shape = model_shape(scaled(ffn_multipliers=(1.0, 3.0), **keys), 6)
    assert (widths(shape)[0], widths(shape)[-1]) == tuple(768 * end for end in ends)
    assert heads(shape) == [12] * 6  # qkv_multipliers are unset


def test_heads_alone_may_vary() -> None:
    model = ModelConfig(
        hidden_size=768, num_attention_heads=12, num_query_groups=3, ffn_hidden_size=1000,
        vocab_size=50304, seq_length=1024,
    )  # fmt: skip
    profile = {"variant": "vanilla", "qkv_multipliers": (0.5, 1.0), "queries_per_group": None}
    shape = model_shape(scaled(model, **profile), 4)
    assert widths(shape) == [1000] * 4
    assert heads(shape) == [6, 9, 9, 12]  # multiples of the 3 key/value heads
    assert {layer.num_query_groups for layer in shape.layers} == {3}
    shape = model_shape(scaled(model, **profile, head_multiple=6), 4)
    assert heads(shape) == [6, 12, 12, 12]  # 8.0 and 10.0: 6 would lose more than a tenth


def test_without_groups_every_query_head_has_its_own() -> None:
    keys = {"qkv_multipliers": (0.5, 1.0), "queries_per_group": None}
    shape = model_shape(scaled(variant="vanilla", **keys), 3)
    assert heads(shape) == [6, 9, 12]
    assert [layer.num_query_groups for layer in shape.layers] == [6, 9, 12]


def test_a_table_is_taken_as_it_stands() -> None:
    table = LayerTable(num_attention_heads=(5, 7), num_query_groups=(5, 1), ffn_hidden_size=(3, 4))
    shape = model_shape(scaled(variant="table", table=table), 2)
    assert (heads(shape), widths(shape)) == ([5, 7], [3, 4])
    assert [layer.num_query_groups for layer in shape.layers] == [5, 1]
    shape = model_shape(scaled(variant="table", table=LayerTable(ffn_hidden_size=(3, 4))), 2)
    assert (heads(shape), widths(shape)) == ([12, 12], [3, 4])


points = st.floats(0.05, 8.0)
hundredths = st.integers(1, 800).map(lambda number: number / 100)
depths = st.integers(1, 40)
roundings = st.sampled_from(["paper", "openelm"])


@given(st.floats(0.01, 1e5), st.integers(1, 1000), roundings)
def test_a_rounded_size_is_a_multiple_and_loses_less_than_a_tenth(
    value: float, divisor: int, rounding: str
) -> None:
    size = make_divisible(value, divisor, rounding)
    assert size >= divisor
    assert size % divisor == 0
    assert 0.9 * value <= size < value + divisor
    if rounding == "paper" and value >= divisor:
        assert size > 0.9 * value


@given(
    st.tuples(points, points), st.tuples(points, points), depths, roundings,
    st.integers(1, 4), st.integers(1, 3), st.sampled_from([8, 64, 96, 256]),
)  # fmt: skip
def test_every_layer_keeps_the_rules(
    ffn: Any, qkv: Any, depth: int, rounding: str, shared: int, groups: int, multiple: int
) -> None:
    shape = model_shape(
        scaled(
            variant="vanilla", ffn_multipliers=tuple(sorted(ffn)),
            qkv_multipliers=tuple(sorted(qkv)), rounding=rounding, ffn_multiple=multiple,
            queries_per_group=shared, head_multiple=shared * groups,
        ),
        depth,
    )  # fmt: skip
    assert shape.num_layers == depth
    for layer in shape.layers:
        assert layer.num_attention_heads % (shared * groups) == 0
        assert layer.num_query_groups * shared == layer.num_attention_heads
        assert layer.ffn_hidden_size % multiple == 0
        assert layer.kv_channels == 64


@given(st.tuples(points, points), depths)
def test_the_line_of_vanilla_goes_up_and_that_of_reverse_down(
    ends: tuple[float, float], depth: int
) -> None:
    low, high = sorted(ends)
    up = multipliers((low, high), depth)
    assert all(below <= above for below, above in pairwise(up))
    down = multipliers((high, low), depth)
    assert all(below >= above for below, above in pairwise(down))
    if depth > 1:  # one from the other, up to how the last binary digit of a tie falls
        assert up[::-1] == pytest.approx(down, abs=0.0101)
        assert (up[0], up[-1]) == pytest.approx((low, high), abs=0.005001)


@given(st.lists(hundredths, min_size=2, max_size=3), depths)
def test_lines_are_those_of_numpy_to_the_last_digit(ends: list[float], depth: int) -> None:
    found = multipliers(ends, depth)
    if len(ends) == 2:
        assert list(found) == np.round(np.linspace(*ends, depth), 2).tolist()
    else:
        half = (depth + 1) // 2
        rising, falling = np.linspace(*ends[:2], half), np.linspace(*ends[1:], half)
        if half > 1:
            assert list(found[:half]) == rising.tolist()
            assert list(found[-half:]) == falling.tolist()


@given(st.tuples(points, points), depths)
def test_reverse_is_vanilla_turned_round_where_no_tie_is_rounded(
    ends: tuple[float, float], depth: int
) -> None:
    whole = tuple(sorted(round(100 * end) / 100 * (depth - 1 or 1) for end in ends))
    if depth > 1:
        assert multipliers(whole, depth) == multipliers(whole[::-1], depth)[::-1]


@given(points, points, depths)
def test_a_crown_of_equal_ends_reads_the_same_from_both_sides(
    end: float, rise: float, depth: int
) -> None:
    crown = multipliers((end, end + rise, end), depth)
    assert crown == pytest.approx(crown[::-1])
    assert crown[depth // 2] == crown[(depth - 1) // 2] == max(crown)
    half = crown[: (depth + 1) // 2]
    assert all(below <= above for below, above in pairwise(half))


@given(st.floats(0.05, 8.0), depths, st.sampled_from(["vanilla", "framed", "reverse"]))
def test_equal_points_make_equal_layers(point: float, depth: int, variant: str) -> None:
    keys = {"ffn_multipliers": (round(point, 2),) * 2, "qkv_multipliers": (0.75, 0.75)}
    assert model_shape(scaled(variant=variant, **keys), depth).is_isotropic
