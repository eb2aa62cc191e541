"""Layer-wise scaling: heads and FFN widths that vary by layer. Pure Python.

A profile gives every layer a multiplier; the layer's size is the multiplier times the isotropic
one, rounded. Formulas: arXiv 2509.06518, section 3; rounding: the authors' code (OLMo-custom) and
OpenELM's (corenet, arXiv 2404.14619).
"""

from __future__ import annotations

from collections.abc import Sequence

from megagrow.config.layer_scaling import is_framed
from megagrow.config.schema import LayerScalingConfig, ModelConfig
from megagrow.model.layer import LayerShape, head_dimension


def scaled_layers(
    model: ModelConfig, scaling: LayerScalingConfig, num_layers: int, ffn_hidden_size: int
) -> tuple[LayerShape, ...]:
    """The layers of a model with layer-wise scaling, from input to output.

    Args:
        model: gives what does not vary.
        scaling: the profile; its table, if it has one, has as many entries as there are layers.
        num_layers: depth; an isotropic model of any depth can be scaled.
        ffn_hidden_size: FFN width of layers whose FFN does not vary.
    """
    heads = _heads(model, scaling, num_layers)
    widths = _ffn_widths(model, scaling, num_layers, ffn_hidden_size)
    groups = _groups(model, scaling, heads)
    return tuple(
        LayerShape(
            num_attention_heads=of_queries,
            num_query_groups=of_keys,
            kv_channels=head_dimension(model),
            ffn_hidden_size=width,
        )
        for of_queries, of_keys, width in zip(heads, groups, widths, strict=True)
    )


def multipliers(
    points: Sequence[float], num_layers: int, frame: float | None = None
) -> tuple[float, ...]:
    """The multiplier of every layer.

    Two points are joined by a line whose values are rounded to two decimals. Three are joined by
    two lines, unrounded, that meet in the middle layer, or in both middle layers of an even depth.

    Args:
        points: at the first and at the last layer, or at the first, the middle and the last.
        num_layers: depth.
        frame: multiplier of the first and the last layer instead; None: theirs.
    """
    if len(points) == 2:
        # As numpy rounds, and so both codes: 2.675 up, which round(value, 2) does not.
        values = [round(value * 100) / 100 for value in _line(points[0], points[1], num_layers)]
    else:
        half = (num_layers + 1) // 2
        rising = _line(points[0], points[1], half)
        rising[-1] = points[1]  # where a half is one layer, that is the middle
        values = rising + _line(points[1], points[2], half)[num_layers % 2 :]
    if frame is not None:
        values[0] = values[-1] = frame
    return tuple(values)


def _line(first: float, last: float, count: int) -> list[float]:
    """`count` values from `first` to `last`, as `numpy.linspace` computes them."""
    if count == 1:
        return [first]
    step = (last - first) / (count - 1)
    return [*(index * step + first for index in range(count - 1)), last]


def make_divisible(value: float, divisor: int, rounding: str) -> int:
    """A size rounded to the nearest multiple of `divisor` that is not much smaller, at least one.

    Args:
        value: the size.
        divisor: what it must be a multiple of.
        rounding: `paper`: up where the nearest multiple is 0.9 of the value or less; `openelm`: up
            where it is less than that.
    """
    if value < divisor:
        return divisor
    nearest = int(value + divisor / 2) // divisor * divisor
    short = nearest <= 0.9 * value if rounding == "paper" else nearest < 0.9 * value
    return nearest + divisor if short else nearest


def head_multiple(model: ModelConfig, scaling: LayerScalingConfig) -> int:
    """What the query heads of every layer are a multiple of."""
    if scaling.head_multiple is not None:
        return scaling.head_multiple
    return scaling.queries_per_group or model.num_query_groups or 1


def _profile(
    scaling: LayerScalingConfig, points: Sequence[float], num_layers: int, which: int
) -> tuple[float, ...]:
    """Multipliers of FFN widths (`which` 0) or of heads (1)."""
    frame = None
    if is_framed(scaling):
        given = scaling.frame_multipliers
        frame = max(points) if given is None else given[which]
    return multipliers(points, num_layers, frame)


def _heads(model: ModelConfig, scaling: LayerScalingConfig, num_layers: int) -> Sequence[int]:
    if scaling.table is not None and scaling.table.num_attention_heads is not None:
        return scaling.table.num_attention_heads
    if scaling.qkv_multipliers is None:
        return (model.num_attention_heads,) * num_layers
    head = head_dimension(model)
    divisor = head_multiple(model, scaling) * head
    return tuple(
        make_divisible(multiplier * model.hidden_size, divisor, scaling.rounding) // head
        for multiplier in _profile(scaling, scaling.qkv_multipliers, num_layers, 1)
    )


def _groups(model: ModelConfig, scaling: LayerScalingConfig, heads: Sequence[int]) -> Sequence[int]:
    if scaling.table is not None and scaling.table.num_query_groups is not None:
        return scaling.table.num_query_groups
    if scaling.queries_per_group is not None:
        return tuple(count // scaling.queries_per_group for count in heads)
    return tuple(model.num_query_groups or count for count in heads)


def _ffn_widths(
    model: ModelConfig, scaling: LayerScalingConfig, num_layers: int, width: int
) -> Sequence[int]:
    if scaling.table is not None and scaling.table.ffn_hidden_size is not None:
        return scaling.table.ffn_hidden_size
    if scaling.ffn_multipliers is None:
        return (width,) * num_layers
    return tuple(
        make_divisible(multiplier * model.hidden_size, scaling.ffn_multiple, scaling.rounding)
        for multiplier in _profile(scaling, scaling.ffn_multipliers, num_layers, 0)
    )
