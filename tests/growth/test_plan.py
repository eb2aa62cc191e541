from __future__ import annotations

import pytest

from megagrow.growth.plan import GrowthPlan, copy_plan


def test_mixed_sources_have_no_layer_map() -> None:
    plan = GrowthPlan(operator="average", old_layers=2, sources=(((0, 0.5), (1, 0.5)),))
    assert not plan.is_copy
    with pytest.raises(ValueError, match="average mixes layers"):
        _ = plan.layer_map
    scaled = GrowthPlan(operator="scaled", old_layers=1, sources=(((0, 0.5),),))
    assert not scaled.is_copy


def test_an_old_layer_lives_on_in_its_first_copy() -> None:
    plan = copy_plan("pattern", 3, [0, 0, None, 2, 1, 2])
    assert plan.added == {1, 2, 5}
    assert plan.drawn == {2}
    mixed = GrowthPlan(
        operator="average", old_layers=1, sources=(((0, 1.0),), ((0, 0.5), (0, 0.5)))
    )
    assert mixed.added == {1}


def test_the_connection_rate_counts_neighbours_that_stay_neighbours() -> None:
    assert copy_plan("x", 3, [0, 1, 2, 0, 1, 2]).connection_rate == 4 / 5
    assert copy_plan("x", 3, [0, None, 1, 2]).connection_rate == 1 / 3
    assert copy_plan("x", 1, [0]).connection_rate == 1.0


def test_refuses_layers_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"no old layers \[-1, 2\] among 2"):
        copy_plan("pattern", 2, [0, 2, -1, 1])
