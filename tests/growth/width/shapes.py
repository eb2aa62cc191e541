"""Pairs of shapes for hypothesis to draw: what every operator that it names supports."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from megagrow.model.shape import ModelShape
from tests.growth.width.reference import model_shape

Pair = tuple[ModelShape, ModelShape]
Layer = tuple[int, int, int, int]

STYLES = ("llama", "gpt2")


@st.composite
def _olds(draw: DrawFn, styles: tuple[str, ...]) -> tuple[int, list[Layer], dict[str, object]]:
    layers = []
    for _ in range(draw(st.integers(1, 2))):
        groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        dimension, ffn = 2 * draw(st.integers(1, 3)), draw(st.integers(1, 9))
        layers.append((groups * per_group, groups, dimension, ffn))
    options: dict[str, object] = {
        "style": draw(st.sampled_from(styles)),
        "tied": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
        "qk_norm": draw(st.booleans()),
    }
    return draw(st.integers(3, 9)), layers, options


@st.composite
def doubled(draw: DrawFn) -> Pair:
    """Everything twice, but the head dimension."""
    hidden, layers, options = draw(_olds(STYLES))
    wide = [(2 * heads, 2 * groups, size, 2 * ffn) for heads, groups, size, ffn in layers]
    return _shape(hidden, layers, options), _shape(2 * hidden, wide, options)


@st.composite
def multiples(draw: DrawFn) -> Pair:
    """Every width some times as large; the head dimension too, where it is free."""
    hidden, layers, options = draw(_olds(STYLES))
    free = options["style"] == "gpt2" and not options["qk_norm"]
    wide = []
    for heads, groups, size, ffn in layers:
        times = draw(st.integers(1, 3))
        # Any number of groups, a multiple of the old one, that divides the new number of heads.
        allowed = [n for n in range(groups, times * heads + 1, groups) if not times * heads % n]
        size = size * draw(st.integers(1, 2)) if free else size
        wide.append(
            (times * heads, draw(st.sampled_from(allowed)), size, ffn * draw(st.integers(1, 3)))
        )
    return (
        _shape(hidden, layers, options),
        _shape(hidden * draw(st.integers(1, 3)), wide, options),
    )


@st.composite
def any_wider(draw: DrawFn, *, hidden_multiple: bool = False) -> Pair:
    """Any larger sizes, key/value groups included; the head dimension stays."""
    hidden, layers, options = draw(_olds(STYLES))
    wide = []
    for heads, groups, size, ffn in layers:
        wider = draw(st.integers(groups, 3 * groups))
        least = max(-(-(heads // groups) // (wider // groups)), -(-heads // wider))
        per_group = draw(st.integers(least, least + 2))
        wide.append((wider * per_group, wider, size, draw(st.integers(ffn, 3 * ffn))))
    new_hidden = hidden * draw(st.integers(1, 3))
    if not hidden_multiple:
        new_hidden = draw(st.integers(hidden, 3 * hidden))
    return _shape(hidden, layers, options), _shape(new_hidden, wide, options)


@st.composite
def same_heads_per_group(draw: DrawFn, *, gpt2_hidden: bool) -> Pair:
    """Any larger sizes with as many query heads to a group as before.

    `gpt2_hidden`: whether the hidden size grows in the gpt2 style.
    """
    hidden, layers, options = draw(_olds(STYLES))
    wide = []
    for heads, groups, size, ffn in layers:
        wider = draw(st.integers(groups, 3 * groups))
        wide.append((heads // groups * wider, wider, size, draw(st.integers(ffn, 3 * ffn))))
    grows = gpt2_hidden or options["style"] == "llama"
    new_hidden = draw(st.integers(hidden, 3 * hidden)) if grows else hidden
    return _shape(hidden, layers, options), _shape(new_hidden, wide, options)


def _shape(hidden: int, layers: list[Layer], options: dict[str, object]) -> ModelShape:
    return model_shape(hidden, *layers, **options)  # type: ignore[arg-type]
