"""Every policy on every operator: it is planned, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any, get_args, get_type_hints

import pytest

from megagrow.config.schema import StageConfig, TransitionConfig, WidthConfig
from megagrow.errors import ConfigError
from megagrow.growth.depth import OPERATORS
from megagrow.plan.schedule import RunPlan, make_plan
from tests.plan.configs import config_of, stage


def choices(kind: type, key: str) -> tuple[str, ...]:
    found: tuple[str, ...] = get_args(get_type_hints(kind)[key])
    return found


OPTIMIZERS = choices(TransitionConfig, "optimizer")
RATES = choices(TransitionConfig, "learning_rate")
OUTPUTS = choices(TransitionConfig, "new_output")
TRAINABLE = choices(StageConfig, "trainable")
WIDTHS = (None, *choices(WidthConfig, "operator"))
DEPTHS = {"none": 4, "first": 2, "lesa": 6}
"""From 4 layers; all others to 8."""
NEEDED: dict[str, dict[str, Any]] = {
    "pattern": {"pattern": "1234x2"},
    "scale": {"moment_scale": [0.5, 0.25]},
    "mask": {"mask_tokens": 256},
}
Cell = tuple[Any, ...]
"""Operator, width operator, optimizer, learning rate, new outputs, what is trained."""
NARROW = {"hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 96}


def refused(
    operator: str, width: str | None, optimizer: str, rate: str, output: str, trainable: str
) -> bool:
    """Whether the combination means nothing, as docs/operators.md says."""
    adds = operator not in ("none", "first")
    if operator == "learned":
        plain = (width, optimizer, output, trainable) == (None, "reset", "copy", "all")
        return not plain or rate == "rewarm_new"
    if not adds and (output != "copy" or trainable != "all" or rate == "rewarm_new"):
        return True
    if optimizer in ("keep_old_zero_new", "scale") and width == "double":
        return True
    if optimizer == "keep_old_zero_new" and not (adds or width):
        return True
    return operator == "expand" and output == "mask"


def cells(operator: str) -> Iterator[Cell]:
    """Every pair of policies, the other ones as they are by default."""
    axes = (WIDTHS, OPTIMIZERS, RATES, OUTPUTS, TRAINABLE)
    seen: set[Cell] = set()
    for one, other in combinations(range(len(axes)), 2):
        for first, second in product(axes[one], axes[other]):
            cell: list[str | None] = [operator, None, "reset", "restart", "copy", "all"]
            cell[1 + one], cell[1 + other] = first, second
            if tuple(cell) not in seen:
                seen.add(tuple(cell))
                yield tuple(cell)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_pair_of_policies_is_planned_or_refused_by_name(operator: str) -> None:
    for cell in cells(operator):
        found = planned(*cell)
        assert isinstance(found, str) == refused(*cell), (cell, found)
        if isinstance(found, str):
            assert any(name in found for name in cell if name), (cell, found)
        else:
            assert found.stages[1].grows == (operator != "none" or cell[1] is not None)


def planned(
    operator: str, width: str | None, optimizer: str, rate: str, output: str, trainable: str
) -> RunPlan | str:
    """The plan, or why there is none."""
    keys: dict[str, Any] = {"operator": operator, "optimizer": optimizer}
    keys |= {"learning_rate": rate, "new_output": output}
    for choice in (operator, optimizer, output):
        keys |= NEEDED.get(choice, {})
    if width is not None:
        keys["width"] = {"operator": width}
    layers = DEPTHS.get(operator, 8)
    first = stage(4, 51_200, **({} if width is None else {"model": NARROW}))
    try:
        config = config_of(first, stage(layers, 51_200, transition=keys, trainable=trainable))
        return make_plan(config)
    except ConfigError as error:
        return str(error)


def test_the_plan_shows_widths() -> None:
    from megagrow.plan.render import render

    grown = {"operator": "stack", "width": {"operator": "hyperclone"}}
    config = config_of(stage(4, 51_200, model=NARROW), stage(8, 51_200, transition=grown))
    text = " ".join(render(make_plan(config)).split())
    assert "hyperclone" in text
    assert [each.shape.hidden_size for each in make_plan(config).stages] == [32, 64]


def test_an_impossible_width_names_the_stage_and_the_nearest() -> None:
    grown = {"width": {"operator": "hyperclone"}}
    narrow = {"hidden_size": 48, "num_attention_heads": 3, "ffn_hidden_size": 96}
    config = config_of(stage(4, 3200, model=narrow), stage(4, 3200, transition=grown))
    with pytest.raises(ConfigError, match=r"stage 'stage1': hyperclone: .*nearest"):
        make_plan(config)


def test_learning_needs_as_many_batches_as_the_stage_has() -> None:
    grown = {"operator": "learned", "learned": {"steps": 14}}
    config = config_of(stage(4, 3200), stage(8, 3200, transition=grown))
    with pytest.raises(ConfigError, match="takes 14 batches of the stage, which has 13"):
        make_plan(config)
