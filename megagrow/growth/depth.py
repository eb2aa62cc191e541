"""The depth operators of the papers: which old layer each new one comes from. Pure Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from megagrow.config.schema import TransitionConfig
from megagrow.errors import ConfigError
from megagrow.growth.pattern import parse_pattern
from megagrow.growth.plan import GrowthPlan, copy_plan
from megagrow.units import nearest_multiple

LayerMap = list[int | None]
"""The old layer of every new one; None: drawn."""


def plan_growth(transition: TransitionConfig, old_layers: int, new_layers: int) -> GrowthPlan:
    """The plan of a transition.

    Raises:
        ConfigError: depths that its operator cannot join, or options that do not fit it.
    """
    layer_map = OPERATORS[transition.operator](old_layers, new_layers, transition)
    plan = copy_plan(transition.operator, old_layers, layer_map)
    predicts = transition.operator == "lesa"
    first_norms = transition.lesa is not None and transition.lesa.norms == "first"
    zero = transition.operator == "expand" or transition.new_output == "zero"
    return replace(
        plan,
        zeroed=plan.added if zero else frozenset(),
        masked=plan.added if transition.new_output == "mask" else frozenset(),
        predicted=plan.added if predicts else frozenset(),
        norms_of=0 if predicts and first_norms else None,
        noise=transition.noise,
    )


def none(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """No growth: every layer stays itself."""
    if new != old:
        raise ConfigError(f"{old} -> {new} layers need a growth operator such as stack")
    return list(range(old))


def stack(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """G_stack: the whole model on top of itself, src(i) = i mod l (arXiv 2405.15319)."""
    _need_multiple("stack", old, new)
    return [layer % old for layer in range(new)]


def append(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """The top layers once more on top; doubling so is StackedBERT's (gonglinyuan/StackingBERT)."""
    _need_at_most_double("append", old, new)
    return [*range(old), *range(2 * old - new, old)]


def interleave(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """Every layer g times in a row, src(i) = i // g (G_stack's interpolation, bert2BERT)."""
    _need_multiple("interleave", old, new)
    return [layer // (new // old) for layer in range(new)]


def pattern(old: int, new: int, transition: TransitionConfig) -> LayerMap:
    """Partial stacking as the G_stack paper writes it: `12-345x7-6`."""
    if transition.pattern is None:
        raise ConfigError("pattern needs the key transition.pattern, for example 12-345x7-6")
    layer_map = parse_pattern(transition.pattern, old)
    if len(layer_map) != new:
        raise ConfigError(
            f"the pattern {transition.pattern!r} has {len(layer_map)} layers, the stage {new}"
        )
    return [*layer_map]


def overlap(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """SOLAR: two copies, without the last m layers of the first and the first m of the second.

    m follows from the depths: new = 2 (old - m). 32 -> 48: m = 8 (arXiv 2312.15166).
    """
    _need_at_most_double("overlap", old, new)
    if new % 2:
        raise ConfigError(f"overlap makes an even number of layers, not {new}; nearest: {new + 1}")
    return [*range(new // 2), *range(old - new // 2, old)]


def expand(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """LLaMA-Pro: a copy after every group of old / (new - old) layers (arXiv 2401.02415).

    The copies' output projections are zero, so that the model's function is kept.
    """
    _need_at_most_double("expand", old, new)
    added = new - old
    if old % added:
        near = min((n for n in range(1, old + 1) if old % n == 0), key=lambda n: abs(n - added))
        raise ConfigError(
            f"expand adds one layer to each of equal groups: {added} does not divide {old}; "
            f"nearest: {old + near} layers"
        )
    size = old // added
    ends = range(size - 1, old, size)
    return sorted([*range(old), *ends])


def middle(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """MIDAS: the block in the middle of the model once more, behind itself (arXiv 2409.19044)."""
    _need_at_most_double("middle", old, new)
    start = (2 * old - new + 1) // 2
    stop = start + new - old
    return [*range(stop), *range(start, old)]


def random(old: int, new: int, transition: TransitionConfig) -> LayerMap:
    """New layers drawn like those of a new model, among the old ones (CGLS, arXiv 2506.11389)."""
    if new <= old:
        raise ConfigError(f"random needs more layers than {old}, not {new}")
    places = _places(old, new, transition)
    kept = iter(range(old))
    return [None if layer in places else next(kept) for layer in range(new)]


def first(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """Inheritune: the first layers of a deeper model (arXiv 2404.08634)."""
    if not 1 <= new < old:
        raise ConfigError(f"first keeps fewer layers than {old}, not {new}")
    return list(range(new))


def lesa(old: int, new: int, transition: TransitionConfig) -> LayerMap:
    """LESA: a new layer between some pairs of neighbours, the last ones (arXiv 2502.13794).

    32 -> 48 expands the pairs (15, 16) to (30, 31), as in the authors' notebook. What of a new
    layer is not predicted is a copy of the one before it.
    """
    if old < 3:
        raise ConfigError(f"lesa learns from triples of layers: 3 are needed, not {old}")
    if not old < new < 2 * old:
        raise ConfigError(
            f"lesa makes {old + 1} to {2 * old - 1} layers of {old}, not {new}; nearest: "
            f"{min(max(new, old + 1), 2 * old - 1)}"
        )
    added, last = new - old, 2 * old - 1 - new
    asked = None if transition.lesa is None else transition.lesa.first_pair
    first = last if asked is None else asked
    if not 0 <= first <= last:
        raise ConfigError(
            f"transition.lesa.first_pair must be from 0 to {last} for {added} pairs of {old} "
            f"layers, not {first}"
        )
    layer_map: LayerMap = []
    for layer in range(old):
        layer_map += [layer, layer] if first <= layer < first + added else [layer]
    return layer_map


def learned(old: int, new: int, _: TransitionConfig) -> LayerMap:
    """LiGO: every layer a learned sum of all old ones (arXiv 2303.00980).

    What is said here is only what the sums begin with: src(i) = i mod l.
    """
    if new < old:
        raise ConfigError(f"learned needs at least {old} layers, not {new}")
    return [layer % old for layer in range(new)]


OPERATORS: Mapping[str, Callable[[int, int, TransitionConfig], LayerMap]] = MappingProxyType(
    {
        operator.__name__: operator
        for operator in (
            none, stack, append, interleave, pattern, overlap, expand, middle, random, first, lesa,
            learned,
        )
    }
)  # fmt: skip
"""Depth operators by the name they have in a configuration."""


def _need_multiple(operator: str, old: int, new: int) -> None:
    if new <= old or new % old:
        near = max(2 * old, nearest_multiple(old, new))
        raise ConfigError(
            f"{operator}: {new} layers are no multiple of {old} above it; nearest: {near}"
        )


def _need_at_most_double(operator: str, old: int, new: int) -> None:
    if not old < new <= 2 * old:
        raise ConfigError(
            f"{operator} makes {old + 1} to {2 * old} layers of {old}, not {new}; nearest: "
            f"{min(max(new, old + 1), 2 * old)}"
        )


def _places(old: int, new: int, transition: TransitionConfig) -> frozenset[int]:
    """Where the drawn layers are in the new model."""
    added = new - old
    listed = transition.positions
    if listed is None:
        start = {"bottom": 0, "middle": (old + 1) // 2, "top": old}[transition.insert]
        return frozenset(range(start, start + added))
    if len(set(listed)) != added or not all(0 <= place < new for place in listed):
        raise ConfigError(
            f"transition.positions must name {added} different layers of the new model, from 0 to "
            f"{new - 1}, not {list(listed)}"
        )
    return frozenset(listed)
