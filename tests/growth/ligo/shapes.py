"""Pairs of shapes that LiGO grows between, and whole models grown by it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from megagrow.growth.ligo.kinds import kinds
from megagrow.growth.ligo.operator import Ligo
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName, tensor_shape
from tests.growth.width.reference import Model, model_shape

Pair = tuple[ModelShape, ModelShape]


@st.composite
def pairs(draw: DrawFn) -> Pair:
    """Any deeper or wider shape, or both: any style, groups, biases, tied or not."""
    style = draw(st.sampled_from(["llama", "gpt2"]))
    options: dict[str, object] = {
        "style": style,
        "tied": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
        "qk_norm": draw(st.booleans()),
    }
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    size, ffn, hidden = (
        2 * draw(st.integers(1, 2)),
        draw(st.integers(1, 5)),
        draw(st.integers(2, 6)),
    )
    layers = draw(st.integers(1, 3))
    old = model_shape(hidden, *[(groups * per_group, groups, size, ffn)] * layers, **options)  # type: ignore[arg-type]
    groups, per_group = groups + draw(st.integers(0, 2)), per_group + draw(st.integers(0, 2))
    size += draw(st.integers(0, 2)) if style == "gpt2" else 0
    layer = (groups * per_group, groups, size, ffn + draw(st.integers(0, 5)))
    deeper = layers + draw(st.integers(0, 4))
    new = model_shape(hidden + draw(st.integers(0, 6)), *[layer] * deeper, **options)  # type: ignore[arg-type]
    if old == new:
        new = model_shape(hidden, *[layer] * (layers + 1), **options)  # type: ignore[arg-type]
    return old, new


def grown(ligo: Ligo, model: Model) -> dict[TensorName, Tensor]:
    """Every tensor of the larger model; their shapes are those of the new one."""
    wide = {}
    for kind in kinds(ligo.old):
        old = [model[name] for name in kind.names(ligo.old)]
        for name, tensor in zip(
            kind.names(ligo.new), ligo.grow(kind.role, kind.bias, old), strict=True
        ):
            assert tuple(tensor.shape) == tensor_shape(name, ligo.new), name
            wide[name] = tensor
    return wide
