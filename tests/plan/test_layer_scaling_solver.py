"""Endpoints that meet a budget: the published models come back, and what is said holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.config.layer_scaling import points_fault
from megagrow.config.schema import LayerScalingConfig, LayerTable, ModelConfig
from megagrow.errors import ConfigError
from megagrow.model.shape import model_shape
from megagrow.plan.layer_scaling_solver import (
    TOLERANCE,
    Budget,
    advice,
    cost,
    solve,
)

# Published variants of arXiv 2509.06518: depth, scaling, and what is free, from another start.
PUBLISHED: list[tuple[int, dict[str, Any], str, Any, float]] = [
    (
        12, {"variant": "vanilla", "ffn_multipliers": (2.0, 5.3), "qkv_multipliers": (0.5, 2.0)},
        "ffn.last", (2.0, 3.0), 178.8,
    ),
    (
        18, {"variant": "vanilla", "ffn_multipliers": (1.0, 4.0), "qkv_multipliers": (0.5, 1.0)},
        "ffn.first", (3.0, 4.0), 179.7,
    ),
    (
        18, {"variant": "framed", "ffn_multipliers": (0.5, 4.0), "qkv_multipliers": (0.5, 1.0)},
        "ffn.last", (0.5, 9.0), 179.4,
    ),
    (
        18, {"variant": "reverse", "ffn_multipliers": (4.0, 0.5), "qkv_multipliers": (1.0, 0.5)},
        "ffn.first", (7.0, 0.5), 179.4,
    ),
    (
        18, {"variant": "crown", "ffn_multipliers": (0.5, 3.8, 0.5),
             "qkv_multipliers": (0.5, 1.0, 0.5), "frame_multipliers": (4.0, 1.0)},
        "ffn.middle", (0.5, 2.0, 0.5), 181.9,
    ),
    (
        18, {"variant": "vanilla", "ffn_multipliers": (2.5, 2.5), "qkv_multipliers": (0.75, 0.75)},
        "ffn.ends", (5.0, 5.0), 183.5,
    ),
]  # fmt: skip
NAMES = ["vanilla 12L", "vanilla 18L", "framed", "reverse", "crown", "isotropic"]


def model(**scaling: Any) -> ModelConfig:
    return ModelConfig(
        hidden_size=768, num_attention_heads=12, vocab_size=50304, seq_length=1024, qk_norm=True,
        layer_scaling=LayerScalingConfig(**{"queries_per_group": 3, **scaling}),
    )  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=NAMES)
def test_published_models_come_back_from_their_counts(row: Any) -> None:
    depth, scaling, free, start, millions = row
    wanted = model(**scaling)
    began = model(**{**scaling, "ffn_multipliers": start})
    # To within what is printed, which rounding hides.
    found = solve(began, depth, Budget(parameters=int(millions * 1e6), embeddings=True), [free])
    assert found.meets
    place = {"first": 0, "last": -1, "middle": 1, "ends": 0}[free.split(".")[1]]
    assert found.multipliers[free] == pytest.approx(scaling["ffn_multipliers"][place], abs=0.12)
    # And from exact counts to the layer.
    for embeddings in (True, False):
        weights, _ = cost(wanted, depth, embeddings)
        found = solve(began, depth, Budget(parameters=weights, embeddings=embeddings), [free])
        assert found.parameter_error == 0
        assert model_shape(found.model, depth) == model_shape(wanted, depth)


@pytest.mark.parametrize("row", PUBLISHED[:5], ids=NAMES[:5])
def test_two_endpoints_meet_two_budgets(row: Any) -> None:
    depth, scaling, free, start, _ = row
    other = {"ffn.first": "qkv.first", "ffn.last": "qkv.last", "ffn.middle": "qkv.middle"}[free]
    baseline = model(variant="vanilla", ffn_multipliers=(2.5, 2.5), qkv_multipliers=(0.75, 0.75))
    weights, flops = cost(baseline, 18, False)
    if depth == 12:
        weights, flops = cost(model(**scaling), depth, False)
    budget = Budget(parameters=weights, flops=flops)
    found = solve(model(**{**scaling, "ffn_multipliers": start}), depth, budget, [free, other])
    assert found.meets
    assert cost(found.model, depth, False) == (found.parameters, found.flops)
    assert abs(found.parameters / weights - 1) <= TOLERANCE
    assert abs(found.flops / flops - 1) <= TOLERANCE


def test_a_value_that_is_as_good_is_round_and_near_the_start() -> None:
    scaling = {"variant": "vanilla", "ffn_multipliers": (1.0, 4.0), "qkv_multipliers": (0.5, 1.0)}
    weights, _ = cost(model(**scaling), 18, False)
    for start in (1.0, 1.7):
        began = model(**{**scaling, "qkv_multipliers": (0.5, start)})
        assert solve(began, 18, Budget(parameters=weights), ["qkv.last"]).multipliers == {
            "qkv.last": 1.0
        }


@pytest.mark.parametrize("middle", [0.15, 0.1512, 0.1488])
def test_two_decimals_where_these_are_enough_and_more_where_not(middle: float) -> None:
    start = ModelConfig(
        hidden_size=4096, num_attention_heads=32, kv_channels=1, vocab_size=1000, seq_length=64,
        layer_scaling=LayerScalingConfig(
            variant="crown", ffn_multipliers=(0.1, 0.1, 0.1), ffn_multiple=1
        ),
    )  # fmt: skip
    weights, _ = cost(_middle(start, middle), 9, False)
    found = solve(start, 9, Budget(parameters=weights), ["ffn.middle"])
    assert found.meets
    value = found.multipliers["ffn.middle"]
    assert value == pytest.approx(middle, abs=0.0006)
    two_decimals = cost(_middle(start, 0.15), 9, False)[0]
    assert (value == 0.15) == (abs(two_decimals / weights - 1) <= TOLERANCE) == (middle == 0.15)


def _middle(start: ModelConfig, value: float) -> ModelConfig:
    assert start.layer_scaling is not None
    return replace(
        start, layer_scaling=replace(start.layer_scaling, ffn_multipliers=(0.1, value, 0.1))
    )


variants = st.sampled_from(["vanilla", "framed", "reverse", "crown"])
hundredths = st.integers(5, 600).map(lambda number: number / 100)
three = st.lists(hundredths, min_size=3, max_size=3)


def _points(variant: str, values: list[float]) -> tuple[float, ...]:
    low, middle, high = sorted(values)
    if variant == "crown":
        return (low, high, middle)
    return (high, low) if variant == "reverse" else (low, high)


@settings(max_examples=15)
@given(
    variants, three, three, st.sampled_from(["first", "last", "ends"]),
    st.sampled_from(["ffn", "qkv", "both"]), st.integers(1, 7), st.sampled_from([16, 64, 256]),
    st.booleans(), st.booleans(),
    st.floats(0.3, 3.0), st.floats(0.5, 2.0), hundredths,
)  # fmt: skip
def test_what_it_returns_is_what_it_says_and_none_is_nearer(
    variant: str, ffn: list[float], qkv: list[float], end: str, what: str, depth: int,
    multiple: int, embeddings: bool, with_flops: bool, larger: float, costlier: float,
    another: float,
) -> None:  # fmt: skip
    scaling = LayerScalingConfig(
        variant=variant,  # type: ignore[arg-type]
        ffn_multipliers=_points(variant, ffn), qkv_multipliers=_points(variant, qkv),
        ffn_multiple=multiple, queries_per_group=2,
    )  # fmt: skip
    start = ModelConfig(
        hidden_size=128, num_attention_heads=8, vocab_size=256, seq_length=64, layer_scaling=scaling
    )
    weights, flops = cost(start, depth, embeddings)
    budget = Budget(
        parameters=int(weights * larger), embeddings=embeddings,
        flops=int(flops * larger * costlier) if with_flops or what == "both" else None,
    )  # fmt: skip
    free = [f"{name}.{end}" for name in (("ffn", "qkv") if what == "both" else (what,))]
    found = solve(start, depth, budget, free)

    ours = found.model.layer_scaling
    assert ours is not None
    assert cost(found.model, depth, embeddings) == (found.parameters, found.flops)
    assert found.parameter_error == found.parameters / budget.parameters - 1
    assert (found.flops_error is None) == (budget.flops is None)
    errors = [abs(found.parameter_error), abs(found.flops_error or 0.0)]
    assert found.meets == (max(errors) <= TOLERANCE)
    assert set(found.multipliers) == set(free)
    last = 2 if variant == "crown" else 1
    moved = {"first": {0}, "last": {last}, "ends": {0, last}}[end]
    for key in ("ffn", "qkv"):
        points, before = getattr(ours, f"{key}_multipliers"), getattr(scaling, f"{key}_multipliers")
        assert points_fault(variant, points) is None
        free_here = moved if f"{key}.{end}" in free else set()
        for place, (value, was) in enumerate(zip(points, before, strict=True)):
            assert value == (found.multipliers[f"{key}.{end}"] if place in free_here else was)
    assert replace(ours, ffn_multipliers=None, qkv_multipliers=None) == replace(
        scaling, ffn_multipliers=None, qkv_multipliers=None
    )
    # Another value, drawn at random, is no nearer.
    other = scaling
    for name in free:
        key = f"{name[:3]}_multipliers"
        points = tuple(
            another if place in moved else point
            for place, point in enumerate(getattr(scaling, key))
        )
        if points_fault(variant, points) is not None:
            return
        other = replace(other, **{key: points})
    weights, flops = cost(replace(start, layer_scaling=other), depth, embeddings)
    fault = abs(weights / budget.parameters - 1)
    if budget.flops is not None:
        fault = max(fault, abs(flops / budget.flops - 1))
    assert found.error == max(errors) <= fault + 1e-12


FRAMED = {"variant": "framed", "ffn_multipliers": (0.5, 4.0), "qkv_multipliers": (0.5, 1.0)}


@pytest.mark.parametrize(
    ("budget", "free", "message"),
    [
        (
            Budget(parameters=30_000_000), ["ffn.last"],
            "with ffn.last at its least, 0.5, it has 44.9M parameters already",
        ),
        (
            Budget(parameters=900_000_000), ["ffn.first"],
            "with ffn.first at its most, 4, it has only 151M parameters",
        ),
        (
            Budget(parameters=102_000_000, flops=100_000_000), ["ffn.last"],
            "FLOPs per token already",
        ),
        (
            Budget(parameters=102_000_000, flops=1_200_000_000), ["ffn.last"],
            "one endpoint cannot meet a budget of parameters and one of FLOPs; free one of qkv",
        ),
        (
            Budget(parameters=102_000_000, flops=1_800_000_000), ["ffn.last", "qkv.last"],
            "no values of ffn.last and qkv.last cost both; free other endpoints, or change a "
            "budget or the depth",
        ),
        (
            Budget(parameters=102_000_000, flops=1_200_000_000), ["qkv.last"],
            "one endpoint cannot meet a budget of parameters and one of FLOPs; free one of ffn",
        ),
    ],
)  # fmt: skip
def test_an_impossible_budget_is_explained(budget: Budget, free: list[str], message: str) -> None:
    found = solve(model(**FRAMED), 18, budget, free)
    assert not found.meets
    assert message in advice(model(**FRAMED), 18, budget, found)


def test_an_endpoint_without_effect_is_named() -> None:
    one = model(variant="vanilla", ffn_multipliers=(1.0, 4.0))
    budget = Budget(parameters=50_000_000)
    found = solve(one, 1, budget, ["ffn.last"])
    assert not found.meets
    assert "ffn.last changes nothing in 1 layer" in advice(one, 1, budget, found)


def test_a_finer_multiple_is_offered_where_it_helps() -> None:
    coarse = {"variant": "vanilla", "ffn_multipliers": (2.0, 2.0), "ffn_multiple": 1024}
    weights, _ = cost(
        model(**{**coarse, "ffn_multipliers": (2.5, 2.5), "ffn_multiple": 1}), 4, False
    )
    budget = Budget(parameters=weights)
    found = solve(model(**coarse), 4, budget, ["ffn.ends"])
    assert not found.meets
    text = advice(model(**coarse), 4, budget, found)
    assert text == (
        "FFN widths in multiples of 1024 step over it; set layer_scaling.ffn_multiple to 128, "
        "which meets it"
    )
    finer = model(**{**coarse, "ffn_multiple": 128})
    assert solve(finer, 4, budget, ["ffn.ends"]).meets
    assert not solve(model(**{**coarse, "ffn_multiple": 256}), 4, budget, ["ffn.ends"]).meets


def test_heads_that_step_over_the_budget_are_told() -> None:
    steps = {"variant": "vanilla", "qkv_multipliers": (1.0, 1.0), "head_multiple": 12}
    weights, _ = cost(
        model(**{**steps, "head_multiple": 3, "qkv_multipliers": (1.25, 1.25)}), 3, False
    )
    budget = Budget(parameters=weights)
    found = solve(model(**steps), 3, budget, ["qkv.ends"])
    assert not found.meets
    assert advice(model(**steps), 3, budget, found).startswith("heads in multiples of 12 step over")


@pytest.mark.parametrize(
    ("scaling", "budget", "free", "message"),
    [
        (FRAMED, Budget(parameters=0), ["ffn.last"], "0 parameters make no model; give a number"),
        (FRAMED, Budget(parameters=1, flops=-1), ["ffn.last"], "-1 FLOPs per token make no model"),
        (FRAMED, Budget(parameters=1), [], "no endpoint is free; name one such as ffn.last"),
        (
            FRAMED, Budget(parameters=1), ["ffn.middle"],
            "no endpoint 'ffn.middle' in variant framed; known: ffn.first, ffn.last, ffn.ends, qkv",
        ),
        (FRAMED, Budget(parameters=1), ["mlp.last"], "no endpoint 'mlp.last'"),
        (
            {"variant": "vanilla", "ffn_multipliers": (1.0, 2.0)}, Budget(parameters=1),
            ["qkv.last"], "qkv.last: qkv_multipliers is unset; give it multipliers to start from",
        ),
        (
            FRAMED, Budget(parameters=1, flops=1), ["ffn.first", "ffn.last"],
            "ffn.first and ffn.last are of one profile",
        ),
        (
            FRAMED, Budget(parameters=1), ["ffn.first", "qkv.last"],
            "ffn.first and qkv.last are more than one budget determines",
        ),
        (
            {"variant": "table", "table": LayerTable(ffn_hidden_size=(1,))}, Budget(parameters=1),
            ["ffn.last"], "a table has no multipliers to move; set another variant",
        ),
        (
            {"variant": "crown", "ffn_multipliers": (0.001, 0.005, 0.001)}, Budget(parameters=1),
            ["ffn.ends"], "ffn.ends: the other multipliers leave it no value of two decimals",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_problem_is_refused(
    scaling: dict[str, Any], budget: Budget, free: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        solve(model(**scaling), 6, budget, free)
    assert message in str(error.value)


def test_a_model_without_scaling_is_refused() -> None:
    plain = replace(model(**FRAMED), layer_scaling=None)
    with pytest.raises(ConfigError, match="the model has no layer_scaling; give it one"):
        solve(plain, 6, Budget(parameters=1), ["ffn.last"])


def test_where_no_multiple_helps_it_says_so() -> None:
    tiny = ModelConfig(
        hidden_size=8, num_attention_heads=1, vocab_size=8, seq_length=8,
        layer_scaling=LayerScalingConfig(
            variant="vanilla", ffn_multipliers=(1.0, 1.0), ffn_multiple=1
        ),
    )  # fmt: skip
    least, more = (cost(_ends(tiny, width / 8), 1, False)[0] for width in (1, 2))
    budget = Budget(parameters=(least + more) // 2)
    found = solve(tiny, 1, budget, ["ffn.ends"])
    assert not found.meets
    assert advice(tiny, 1, budget, found).startswith("no FFN multiple meets it; free an endpoint")


def _ends(start: ModelConfig, value: float) -> ModelConfig:
    assert start.layer_scaling is not None
    return replace(
        start, layer_scaling=replace(start.layer_scaling, ffn_multipliers=(value, value))
    )
