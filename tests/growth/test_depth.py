from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config.schema import LesaConfig, TransitionConfig
from megagrow.errors import ConfigError
from megagrow.growth.depth import OPERATORS, plan_growth
from megagrow.growth.plan import GrowthPlan


def plan(operator: str, old: int, new: int, **keys: Any) -> GrowthPlan:
    transition = {"operator": operator, "optimizer": "reset", "learning_rate": "restart", **keys}
    return plan_growth(TransitionConfig(**transition), old, new)


@pytest.mark.parametrize(
    ("operator", "old", "new", "keys", "layers"),
    [
        ("stack", 2, 6, {}, [0, 1, 0, 1, 0, 1]),
        ("append", 3, 6, {}, [0, 1, 2, 0, 1, 2]),
        ("append", 3, 5, {}, [0, 1, 2, 1, 2]),
        ("interleave", 3, 6, {}, [0, 0, 1, 1, 2, 2]),
        ("pattern", 3, 6, {"pattern": "1-23x2-3"}, [0, 1, 2, 1, 2, 2]),
        ("overlap", 4, 6, {}, [0, 1, 2, 1, 2, 3]),
        ("expand", 4, 6, {}, [0, 1, 1, 2, 3, 3]),
        ("middle", 4, 6, {}, [0, 1, 2, 1, 2, 3]),
        ("middle", 3, 4, {}, [0, 1, 1, 2]),
        ("middle", 2, 4, {}, [0, 1, 0, 1]),
        ("random", 2, 4, {}, [0, 1, None, None]),
        ("random", 2, 4, {"insert": "bottom"}, [None, None, 0, 1]),
        ("random", 3, 4, {"insert": "middle"}, [0, 1, None, 2]),
        ("random", 2, 4, {"positions": (0, 2)}, [None, 0, None, 1]),
        ("first", 4, 2, {}, [0, 1]),
        ("none", 2, 2, {}, [0, 1]),
    ],
)
def test_layer_maps(
    operator: str, old: int, new: int, keys: dict[str, Any], layers: list[int | None]
) -> None:
    found = plan(operator, old, new, **keys)
    assert list(found.layer_map) == layers
    assert (found.operator, found.old_layers, found.new_layers) == (operator, old, new)


def test_solar_and_llama_pro_as_published() -> None:
    solar = plan("overlap", 32, 48).layer_map
    assert solar == (*range(24), *range(8, 32))
    pro = plan("expand", 32, 40)
    assert [layer for layer in range(40) if layer in pro.added] == list(range(4, 40, 5))
    assert pro.zeroed == pro.added
    assert pro.layer_map[4] == pro.layer_map[3] == 3


@pytest.mark.parametrize(
    ("operator", "old", "keys", "rate"),
    [
        ("stack", 8, {}, 91.3),
        ("interleave", 8, {}, 30.4),
        ("pattern", 6, {"pattern": "123456x4"}, 87.0),
        ("pattern", 6, {"pattern": "12-3456x5-56"}, 78.3),
        ("pattern", 6, {"pattern": "123-456x7"}, 73.9),
        ("pattern", 6, {"pattern": "12-34x10-56"}, 60.9),
        ("pattern", 6, {"pattern": "1-234x7-56"}, 73.9),
        ("pattern", 6, {"pattern": "123x7-456"}, 73.9),
    ],
)
def test_connection_rates_of_the_paper(
    operator: str, old: int, keys: dict[str, Any], rate: float
) -> None:
    assert round(100 * plan(operator, old, 24, **keys).connection_rate, 1) == rate


@given(st.sampled_from(sorted(OPERATORS)), st.integers(1, 30), st.integers(1, 90))
def test_a_plan_has_the_layers_asked_for_or_is_refused(operator: str, old: int, new: int) -> None:
    keys = {"pattern": f"1..{old}x2"} if operator == "pattern" else {}
    try:
        found = plan(operator, old, new, **keys)
    except ConfigError:
        return
    assert found.new_layers == new
    assert all(source is None or 0 <= source < old for source in found.layer_map)
    if operator == "learned":
        assert not found.added
    elif operator != "first":  # every old layer lives on, once
        assert new - len(found.added) == old


def test_what_is_done_to_new_layers() -> None:
    zero = plan("stack", 2, 4, new_output="zero", noise=0.2)
    assert (zero.zeroed, zero.masked, zero.noise) == ({2, 3}, frozenset(), 0.2)
    mask = plan("random", 2, 4, new_output="mask", mask_tokens=10)
    assert (mask.zeroed, mask.masked, mask.drawn) == (frozenset(), {2, 3}, {2, 3})


@pytest.mark.parametrize(
    ("operator", "old", "new", "keys", "message"),
    [
        ("stack", 4, 6, {}, "6 layers are no multiple of 4 above it; nearest: 8"),
        ("interleave", 4, 4, {}, "no multiple of 4 above it; nearest: 8"),
        ("none", 4, 8, {}, "4 -> 8 layers need a growth operator such as stack"),
        ("append", 4, 9, {}, "append makes 5 to 8 layers of 4, not 9; nearest: 8"),
        ("overlap", 4, 7, {}, "even number of layers, not 7; nearest: 8"),
        ("expand", 8, 11, {}, "3 does not divide 8; nearest: 10 layers"),
        ("random", 4, 4, {}, "random needs more layers than 4"),
        ("random", 2, 4, {"positions": (1, 4)}, "must name 2 different layers of the new model"),
        ("first", 4, 4, {}, "first keeps fewer layers than 4, not 4"),
        ("pattern", 3, 6, {}, "needs the key transition.pattern"),
        ("pattern", 3, 6, {"pattern": "123"}, "'123' has 3 layers, the stage 6"),
        ("pattern", 3, 6, {"pattern": "1234"}, "no layer 4 among 1 to 3"),
        ("pattern", 3, 6, {"pattern": "12x-3"}, "cannot read '12x'"),
        ("pattern", 3, 6, {"pattern": "1..x2"}, "cannot read '1..'"),
    ],
)
def test_refuses(operator: str, old: int, new: int, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(operator, old, new, **keys)
    assert message in str(error.value)


def test_patterns_of_deep_models_have_commas_and_ranges() -> None:
    deep = plan("pattern", 13, 16, pattern="1..11-12,13x2-13")
    assert deep.layer_map == (*range(11), 11, 12, 11, 12, 12)


def test_lesa_expands_the_pairs_of_its_notebook() -> None:
    found = plan("lesa", 32, 48)
    left_of = found.left_of
    assert list(left_of.values()) == list(range(15, 31))
    assert found.layer_map[:18] == (*range(16), 15, 16)
    assert (found.layer_map[-1], sorted(left_of)) == (31, list(range(16, 48, 2)))
    assert found.added == found.predicted == set(left_of)


def test_lesa_expands_any_range_of_pairs() -> None:
    found = plan("lesa", 6, 8, lesa=LesaConfig(first_pair=1))
    assert found.layer_map == (0, 1, 1, 2, 2, 3, 4, 5)
    assert found.left_of == {2: 1, 4: 2}
    with pytest.raises(ConfigError, match="from 0 to 3 for 2 pairs of 6 layers, not 4"):
        plan("lesa", 6, 8, lesa=LesaConfig(first_pair=4))
