"""What keeps the function: logits of a plain GPT before and after, on any shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from megagrow.config.schema import InitConfig
from megagrow.growth.width.corners import Random, Zero
from megagrow.growth.width.double import Double
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.hyperclone import HyperClone
from megagrow.growth.width.interface import WidthOperator
from megagrow.growth.width.masks import mask_of
from megagrow.growth.width.rms_preserving import RmsPreserving
from megagrow.growth.width.split import Split
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import (
    Forward,
    Model,
    grown,
    logits,
    model_shape,
    random_model,
    relative_error,
    tokens,
)
from tests.growth.width.shapes import (
    Pair,
    any_wider,
    doubled,
    multiples,
    same_heads_per_group,
)

TOLERANCE = 1e-5
NO_EPSILON = 1e-12
LARGE = Draws(seed=1, init=InitConfig(std=0.5))
"""What is drawn is as large as what is old, and would be seen in the logits."""
EXAMPLES = settings(max_examples=25)


def error(operator: WidthOperator, pair: Pair, epsilon: float = 1e-5) -> float:
    old, new = pair
    model = random_model(old, 0)
    wide = logits(grown(operator, model, old, new), new, epsilon)
    return relative_error(wide, logits(model, old, epsilon))


@EXAMPLES
@given(multiples(), st.sampled_from([None, 0.0, 20.0]))
def test_hyperclone_keeps_logits_with_noise_and_without(pair: Pair, snr_db: float | None) -> None:
    assert error(HyperClone(snr_db=snr_db), pair) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_every_style_tied_or_not_with_any_groups(style: str, tied: bool, groups: int) -> None:
    old = model_shape(6, (4, groups, 2, 5), style=style, tied=tied)
    double = model_shape(12, (8, 2 * groups, 2, 10), style=style, tied=tied)
    grouped = model_shape(18, (8, groups, 2, 15), style=style, tied=tied)
    longer = model_shape(6, (4, groups, 4, 5), style=style, tied=tied)
    hidden = 6 if style == "gpt2" else 11
    uneven = model_shape(hidden, (12, 3 * groups, 2, 7), style=style, tied=tied)
    assert error(Double(), (old, double)) < TOLERANCE
    assert error(HyperClone(snr_db=3.0), (old, grouped)) < TOLERANCE
    if style == "gpt2":
        assert error(HyperClone(snr_db=3.0), (old, longer)) < TOLERANCE
    assert error(Split(scale_norms=False), (old, grouped)) < TOLERANCE
    assert error(Zero(draws=LARGE), (old, uneven), NO_EPSILON) < TOLERANCE


@EXAMPLES
@given(doubled())
def test_double_keeps_logits(pair: Pair) -> None:
    assert error(Double(), pair) < TOLERANCE


@EXAMPLES
@given(same_heads_per_group(gpt2_hidden=False))
def test_zero_keeps_logits_but_for_epsilon(pair: Pair) -> None:
    assert error(Zero(draws=LARGE), pair, epsilon=NO_EPSILON) < TOLERANCE


def test_zero_moves_logits_by_epsilon_and_no_more() -> None:
    old = model_shape(8, (2, 1, 4, 8))
    new = model_shape(16, (4, 2, 4, 16))
    assert 1e-7 < error(Zero(), (old, new)) < 1e-4


@EXAMPLES
@given(any_wider(hidden_multiple=True), st.sampled_from([0.3, 2 / 3]))
def test_split_keeps_logits_at_multiples_of_the_hidden_size(pair: Pair, alpha: float) -> None:
    assert error(Split(alpha=alpha, scale_norms=False), pair) < TOLERANCE


@EXAMPLES
@given(any_wider(hidden_multiple=True))
def test_split_as_in_the_paper_keeps_logits_where_the_hidden_size_stays(pair: Pair) -> None:
    old, new = pair
    kept = old.style == "gpt2" or old.hidden_size == new.hidden_size
    assert (error(Split(), pair) < TOLERANCE) == kept


@EXAMPLES
@given(multiples())
def test_rms_preserving_copies_keep_logits_at_multiples_of_every_width(pair: Pair) -> None:
    old, new = pair
    layers = tuple(
        replace(wide, kv_channels=narrow.kv_channels)
        for narrow, wide in zip(old.layers, new.layers, strict=True)
    )
    assert error(RmsPreserving(), (old, replace(new, layers=layers))) < TOLERANCE


@EXAMPLES
@given(same_heads_per_group(gpt2_hidden=True))
def test_random_keeps_logits_while_its_mask_is_zero(pair: Pair) -> None:
    old, new = pair
    model = random_model(old, 0)
    wide = grown(Random(draws=LARGE), model, old, new)
    before, after = logits(model, old, NO_EPSILON), logits(wide, new, NO_EPSILON)
    assert relative_error(_masked(wide, old, new, 0.0), before) < TOLERANCE
    assert relative_error(_masked(wide, old, new, 1.0), after) < TOLERANCE
    if old != new:
        assert relative_error(after, before) > TOLERANCE


def _masked(wide: Model, old: ModelShape, new: ModelShape, value: float) -> Tensor:
    def masks(name: TensorName) -> Tensor | None:
        mask = mask_of(name, old, new)
        if mask is None:
            return None
        vector = torch.full((mask.new,), value)
        vector[: mask.old] = 1.0
        return vector

    return Forward(model=wide, shape=new, masks=masks, epsilon=NO_EPSILON).logits(tokens(new))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("axis", ["ffn", "heads", "hidden"])
def test_zero_leaves_no_new_value_without_a_gradient(style: str, tied: bool, axis: str) -> None:
    """Within four steps a gradient has reached every value of the new model."""
    if (style, axis) == ("gpt2", "hidden"):
        return  # refused
    old = model_shape(6, (2, 1, 4, 5), style=style, tied=tied)
    layer = {"ffn": (2, 1, 4, 9), "heads": (6, 3, 4, 5), "hidden": (6, 3, 4, 9)}[axis]
    new = model_shape(10 if axis == "hidden" else 6, layer, style=style, tied=tied)
    wide = {
        name: tensor.double().requires_grad_()
        for name, tensor in grown(Zero(), random_model(old, 0), old, new).items()
    }
    reached = {name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in wide.items()}
    generator = torch.Generator().manual_seed(0)
    target = torch.randn((2, 6, 12), generator=generator, dtype=torch.float64)
    for _ in range(4):
        loss = (logits(wide, new) - target).square().mean()
        for (name, tensor), gradient in zip(
            wide.items(), torch.autograd.grad(loss, list(wide.values())), strict=True
        ):
            reached[name] |= gradient != 0
            with torch.no_grad():
                tensor -= 0.01 * gradient
    for name, hit in reached.items():
        if name.role is Role.KEY and name.bias:
            continue  # softmax does not see it
        looked_up = hit[tokens(new).unique()] if name.role is Role.TOKEN_EMBEDDING else hit
        assert looked_up.all(), name


@pytest.mark.parametrize(
    ("operator", "new_layer"),
    [(HyperClone(), (4, 2, 4, 10)), (Double(), (4, 2, 4, 10)), (Zero(), (4, 2, 4, 9))],
)
def test_function_holds_in_float64_far_below_the_tolerance(
    operator: WidthOperator, new_layer: tuple[int, int, int, int]
) -> None:
    old = model_shape(6, (2, 1, 4, 5), qkv_bias=True, qk_norm=True)
    new = model_shape(12, new_layer, qkv_bias=True, qk_norm=True)
    model = random_model(old, 0, torch.float64)
    wide = logits(grown(operator, model, old, new), new, epsilon=1e-30)
    assert relative_error(wide, logits(model, old, epsilon=1e-30)) < 1e-13


def test_logits_depend_on_every_tensor() -> None:
    """Else a tensor could be widened wrongly unseen."""
    for style in ("llama", "gpt2"):
        shape = model_shape(6, (4, 2, 4, 5), style=style, qkv_bias=True, qk_norm=True)
        model = random_model(shape, 0)
        for name, tensor in model.items():
            if style == "gpt2" and name.bias and name.role in (Role.KEY, Role.KEY_NORM):
                continue  # the softmax does not see what all keys share
            changed = {**model, name: tensor * torch.linspace(1, 1.5, tensor.shape[-1])}
            assert relative_error(logits(changed, shape), logits(model, shape)) > 1e-4, name
