"""Layer-wise scaling that meets a budget: which multiplier gives so many parameters. Pure Python.

Models are compared at equal size or equal cost, and sizes are rounded to multiples, so the
multiplier that fits cannot be written down: it is looked for. Costs never fall where a multiplier
rises (interpolation, rounding and frames all keep order), and those of MLPs and of attention add
up, so every multiplier of two decimals is tried in one table per free endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from megagrow.config.schema import LayerScalingConfig, ModelConfig
from megagrow.errors import ConfigError
from megagrow.model.flops import flops_per_token, parameters
from megagrow.model.layer_scaling import head_multiple
from megagrow.model.shape import model_shape
from megagrow.plan.layer_scaling_endpoints import (
    DECIMALS,
    allowed_values,
    moved,
    points_of,
    present_value,
    roundest,
)
from megagrow.units import counted, format_count

TOLERANCE = 0.005
"""Share of a budget by which a model may miss it."""

FINE_DECIMALS = 4
"""Decimals that are tried where `DECIMALS` miss the budget."""

_BEYOND = 1.25
"""Costs above this share of a budget end a table; none further up can be nearest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a model is to cost."""

    parameters: int
    """Weights."""

    embeddings: bool = False
    """Whether embeddings and output layer are among them."""

    flops: int | None = None
    """FLOPs of training on one token; None: whatever comes of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """The nearest model to a budget."""

    model: ModelConfig
    """The model, with the multipliers that were found."""

    multipliers: Mapping[str, float]
    """Value of each endpoint that was free."""

    parameters: int
    """Weights, counted as in the budget."""

    flops: int
    """FLOPs of training on one token."""

    parameter_error: float
    """By which share of the budget it has too many weights, or below 0 too few."""

    flops_error: float | None
    """Likewise of FLOPs; None: they have no budget."""

    @property
    def error(self) -> float:
        """The larger of the two shares by which it misses, whichever way."""
        return max(abs(self.parameter_error), abs(self.flops_error or 0.0))

    @property
    def meets(self) -> bool:
        """Whether every budget is met within `TOLERANCE`."""
        return self.error <= TOLERANCE


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plateau:
    """Neighbouring values of an endpoint that make one and the same model cost."""

    values: tuple[float, ...]
    parameters: int
    flops: int


def cost(model: ModelConfig, num_layers: int, embeddings: bool) -> tuple[int, int]:
    """Parameters, with or without embeddings and output layer, and FLOPs per token of training."""
    shape = model_shape(model, num_layers)
    counts = parameters(shape)
    return counts.total if embeddings else counts.non_embedding, flops_per_token(shape).total


def solve(model: ModelConfig, num_layers: int, budget: Budget, free: Sequence[str]) -> Solution:
    """Moves endpoints of the model's layer-wise scaling until it meets the budget.

    Args:
        model: its other multipliers stay; those of the free endpoints only break ties.
        num_layers: depth.
        budget: what to meet; the solution is the nearest where that cannot be.
        free: what may move: `ffn.first`, `ffn.middle`, `ffn.last`, `ffn.ends` (first and last, to
            one value) and likewise `qkv.`; one of either, or with FLOPs one of both.

    Raises:
        ConfigError: there is nothing to move, or more than the budget determines.
    """
    scaling = _checked(model, budget, free)
    values = {name: allowed_values(scaling, name) for name in free}
    for name, allowed in values.items():
        if not allowed:
            raise ConfigError(f"{name}: the other multipliers leave it no value of two decimals")
    rows = _nearest(model, num_layers, budget, values)
    found = _solution(model, num_layers, budget, rows)
    if not found.meets:
        finer = {name: _finer(scaling, name, row) for name, row in rows.items()}
        rows = _nearest(model, num_layers, budget, finer)
        again = _solution(model, num_layers, budget, rows)
        if again.error < found.error:
            return again
    return found


def advice(model: ModelConfig, num_layers: int, budget: Budget, solution: Solution) -> str:
    """Why a budget cannot be met, and what would help.

    Args:
        model: the model that `solve` was given.
        num_layers: depth.
        budget: the budget.
        solution: what `solve` found, and does not meet it.
    """
    scaling = _scaling(model)
    free = list(solution.multipliers)
    for name in free:
        if _is_idle(model, num_layers, name):
            return (
                f"{name} changes nothing in {counted(num_layers, 'layer')}; free another endpoint, "
                "or change the depth"
            )
    reach = _beyond_reach(model, num_layers, budget, free)
    if reach is not None:
        return reach
    if any(name.startswith("ffn") for name in free):
        current = scaling.ffn_multiple
        for multiple in (size for size in range(current - 1, 0, -1) if current % size == 0):
            finer = replace(model, layer_scaling=replace(scaling, ffn_multiple=multiple))
            if solve(finer, num_layers, budget, free).meets:
                return (
                    f"FFN widths in multiples of {current} step over it; set "
                    f"layer_scaling.ffn_multiple to {multiple}, which meets it"
                )
    if budget.flops is not None and len(free) == 1:
        other = "qkv" if free[0].startswith("ffn") else "ffn"
        return (
            "one endpoint cannot meet a budget of parameters and one of FLOPs; free one of "
            f"{other} as well, or drop a budget"
        )
    if len(free) > 1:
        return (
            f"no values of {' and '.join(free)} cost both; free other endpoints, or change a "
            "budget or the depth"
        )
    if free[0].startswith("ffn"):
        return "no FFN multiple meets it; free an endpoint of qkv instead, or change the depth"
    multiple, unit = head_multiple(model, scaling), scaling.queries_per_group or 1
    smaller = multiple > (unit if scaling.queries_per_group else model.num_query_groups or 1)
    key = "layer_scaling.head_multiple" if smaller else "layer_scaling.queries_per_group"
    offer = f"set a smaller {key}, " if multiple > 1 else ""
    return (
        f"heads in multiples of {multiple} step over it; {offer}free an endpoint of ffn instead, "
        "or change the depth"
    )


def _is_idle(model: ModelConfig, num_layers: int, name: str) -> bool:
    """Whether all values of an endpoint make the same model, as of the last layer of one."""
    scaling = _scaling(model)
    allowed = allowed_values(scaling, name)
    ends = [moved(scaling, name, value) for value in (allowed[0], allowed[-1])]
    costs = {cost(replace(model, layer_scaling=end), num_layers, True) for end in ends}
    return len(allowed) > 1 and len(costs) == 1


def _scaling(model: ModelConfig) -> LayerScalingConfig:
    if model.layer_scaling is None:
        raise ConfigError("the model has no layer_scaling; give it one, with multipliers to start")
    return model.layer_scaling


def _checked(model: ModelConfig, budget: Budget, free: Sequence[str]) -> LayerScalingConfig:
    """The model's scaling, where `free` names what a budget determines."""
    scaling = _scaling(model)
    if scaling.variant == "table":
        raise ConfigError("a table has no multipliers to move; set another variant")
    for name, target in (("parameters", budget.parameters), ("FLOPs per token", budget.flops)):
        if target is not None and target < 1:
            raise ConfigError(f"{target} {name} make no model; give a number above 0")
    if not free:
        raise ConfigError("no endpoint is free; name one such as ffn.last")
    for name in free:
        points_of(scaling, name)
    kinds = [name.partition(".")[0] for name in free]
    if len(set(kinds)) < len(kinds):
        raise ConfigError(
            f"{' and '.join(free)} are of one profile, and any number of pairs has the same cost; "
            "free one of ffn and one of qkv"
        )
    if len(free) > 1 and budget.flops is None:
        raise ConfigError(
            f"{' and '.join(free)} are more than one budget determines; free one of them, or set "
            "a budget of FLOPs"
        )
    return scaling


def _finer(scaling: LayerScalingConfig, name: str, row: _Plateau) -> list[float]:
    """The values of a plateau's ends, and finer ones up to its neighbours."""
    step, low, high = 10.0**-DECIMALS, row.values[0], row.values[-1]
    sides = ((low - step, low), (high, high + step))
    return [value for side in sides for value in allowed_values(scaling, name, side, FINE_DECIMALS)]


def _nearest(
    model: ModelConfig, num_layers: int, budget: Budget, values: Mapping[str, Sequence[float]]
) -> dict[str, _Plateau]:
    """The plateaus that come nearest to the budget, of all combinations of `values`."""
    least = _scaling(model)
    for name, allowed in values.items():
        least = moved(least, name, allowed[0])
    tables = {
        name: _plateaus(replace(model, layer_scaling=least), num_layers, budget, name, allowed)
        for name, allowed in values.items()
    }
    first, *rest = tables.values()
    weights = np.array([[row.parameters] for row in first])
    flops = np.array([[row.flops] for row in first])
    for others in rest:  # what MLPs and attention cost adds up; the first rows are the least model
        weights = weights + np.array([row.parameters - others[0].parameters for row in others])
        flops = flops + np.array([row.flops - others[0].flops for row in others])
    error = np.abs(weights / budget.parameters - 1)
    if budget.flops is not None:
        error = np.maximum(error, np.abs(flops / budget.flops - 1))
    place = np.unravel_index(int(error.argmin()), error.shape)
    return {
        name: rows[int(index)] for (name, rows), index in zip(tables.items(), place, strict=False)
    }


def _plateaus(
    model: ModelConfig, num_layers: int, budget: Budget, name: str, values: Sequence[float]
) -> list[_Plateau]:
    scaling = _scaling(model)
    costs: list[tuple[float, tuple[int, int]]] = []
    for value in values:
        tried = replace(model, layer_scaling=moved(scaling, name, value))
        weights, flops = cost(tried, num_layers, budget.embeddings)
        costs.append((value, (weights, flops)))
        if weights > _BEYOND * budget.parameters or (
            budget.flops is not None and flops > _BEYOND * budget.flops
        ):
            break
    return [
        _Plateau(values=tuple(value for value, _ in group), parameters=weights, flops=flops)
        for (weights, flops), group in groupby(costs, key=lambda pair: pair[1])
    ]


def _solution(
    model: ModelConfig, num_layers: int, budget: Budget, rows: Mapping[str, _Plateau]
) -> Solution:
    scaling = _scaling(model)
    found = {name: roundest(row.values, present_value(scaling, name)) for name, row in rows.items()}
    return _solved(model, num_layers, budget, found)


def _solved(
    model: ModelConfig, num_layers: int, budget: Budget, found: Mapping[str, float]
) -> Solution:
    scaling = _scaling(model)
    for name, value in found.items():
        scaling = moved(scaling, name, value)
    solved = replace(model, layer_scaling=scaling)
    weights, flops = cost(solved, num_layers, budget.embeddings)
    return Solution(
        model=solved,
        multipliers=found,
        parameters=weights,
        flops=flops,
        parameter_error=weights / budget.parameters - 1,
        flops_error=None if budget.flops is None else flops / budget.flops - 1,
    )


def _beyond_reach(
    model: ModelConfig, num_layers: int, budget: Budget, free: Sequence[str]
) -> str | None:
    """That the smallest model is too large, or the largest too small, if so."""
    scaling = _scaling(model)
    for place, word in ((0, "least"), (-1, "most")):
        found = {name: allowed_values(scaling, name)[place] for name in free}
        extreme = _solved(model, num_layers, budget, found)
        where = " and ".join(f"{name} at its {word}, {value:g}" for name, value in found.items())
        for amount, error, what in (
            (extreme.parameters, extreme.parameter_error, "parameters"),
            (extreme.flops, extreme.flops_error or 0.0, "FLOPs per token"),
        ):
            if error > TOLERANCE if place == 0 else error < -TOLERANCE:
                return (
                    f"with {where}, it has {format_count(amount)} {what} already; the rest of "
                    "the model is too large: change the other multipliers, or the depth"
                    if place == 0
                    else f"with {where}, it has only {format_count(amount)} {what}; change the "
                    "other multipliers, or the depth"
                )
    return None
