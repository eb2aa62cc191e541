from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from megagrow.errors import ConfigError
from megagrow.growth.width.axes import Axis
from megagrow.growth.width.channels import channels
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.rms_preserving import Fill, RmsPreserving, fan_in_factor
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import model_shape

DOWN = TensorName(role=Role.DOWN, layer=0)
UP = TensorName(role=Role.UP, layer=0)
FILLS = [
    (fan_out, fan_in)
    for fan_out in get_args(Fill)
    for fan_in in get_args(Fill)
    if (fan_out, fan_in) != ("zero", "zero")
]


def test_factors_of_the_paper() -> None:
    assert fan_in_factor(4, 8, True) == 0.5
    assert fan_in_factor(4, 6, True) == pytest.approx(math.sqrt(4 / 10))
    assert fan_in_factor(4, 12, True) == pytest.approx(1 / 3)
    assert fan_in_factor(4, 8, False) == pytest.approx(math.sqrt(1 / 2))
    assert fan_in_factor(4, 4, True) == fan_in_factor(4, 4, False) == 1


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("ffn", [384, 512, 768])
@pytest.mark.parametrize(("fan_out", "fan_in"), FILLS)
def test_outputs_keep_their_root_mean_square(fan_out: Fill, fan_in: Fill, ffn: int) -> None:
    """On random inputs; for a zero side, as if it were random (the paper's choice)."""
    old, new = model_shape(64, (1, 1, 2, 256)), model_shape(64, (1, 1, 2, ffn))
    operator = RmsPreserving(fan_out=fan_out, fan_in=fan_in, draws=Draws(seed=1))
    generator = torch.Generator().manual_seed(0)
    up = torch.randn((256, 64), generator=generator) / 8
    down = torch.randn((64, 256), generator=generator) / 16
    x = torch.randn((512, 64), generator=generator)
    before = x @ up.T
    after = x @ operator.widen(UP, up, old, new).T
    if fan_out != "zero":
        assert rms(after) == pytest.approx(rms(before), rel=0.05)
    wide = operator.widen(DOWN, down, old, new)
    ratio = rms(after @ wide.T) / rms(before @ down.T)
    kept = 1.0
    if "zero" in (fan_out, fan_in):
        kept = math.sqrt(256 / ffn)
    assert ratio == pytest.approx(kept, rel=0.06)


@pytest.mark.parametrize(("fan_out", "fan_in"), FILLS)
def test_what_is_copied_random_and_zero(fan_out: Fill, fan_in: Fill) -> None:
    old, new = model_shape(4, (4, 2, 2, 6)), model_shape(7, (6, 3, 2, 10))
    operator = RmsPreserving(fan_out=fan_out, fan_in=fan_in, draws=Draws(seed=1))
    weight = torch.randn((4, 6), generator=torch.Generator().manual_seed(0))
    factor = fan_in_factor(6, 10, fan_out == fan_in == "copy")
    wide = operator.widen(DOWN, weight, old, new) / factor
    torch.testing.assert_close(wide[:4, :6], weight)
    rows, columns = wide[4:, :6], wide[:, 6:]
    if fan_out == "copy":
        torch.testing.assert_close(rows, weight[:3])
    assert (rows == 0).all() == (fan_out == "zero")
    if fan_in == "copy":
        torch.testing.assert_close(columns, wide[:, :4])
    assert (columns == 0).all() == (fan_in == "zero")
    if fan_in == "random":
        assert not torch.isclose(columns, wide[:, :4]).any()
        assert not torch.isclose(columns[4:, :3], wide[4:, :3]).any()


def test_embeddings_are_outputs_and_biases_follow() -> None:
    old = model_shape(4, (2, 1, 2, 6), style="gpt2", tied=True)
    new = model_shape(6, (2, 1, 2, 6), style="gpt2", tied=True)
    operator = RmsPreserving(fan_out="zero", fan_in="copy")
    table = torch.ones(12, 4)
    wide = operator.widen(TensorName(role=Role.TOKEN_EMBEDDING), table, old, new)
    assert torch.equal(wide, torch.cat([table, torch.zeros(12, 2)], dim=1))
    bias = TensorName(role=Role.DOWN, layer=0, bias=True)
    assert operator.widen(bias, torch.ones(4), old, new).tolist() == [1, 1, 1, 1, 0, 0]
    copies = RmsPreserving()
    assert copies.widen(bias, torch.ones(4), old, new).tolist() == [1] * 6
    gain = torch.ones(4)
    norm = TensorName(role=Role.FINAL_NORM)
    assert copies.widen(norm, gain, old, new)[0] == pytest.approx(math.sqrt(4 / 10))
    assert operator.widen(norm, gain, old, new)[0] == pytest.approx(math.sqrt(4 / 6))
    # The table is copied as outputs are, whatever new inputs of other weights are.
    half = RmsPreserving(fan_out="copy", fan_in="random")
    assert half.widen(norm, gain, old, new)[0] == pytest.approx(math.sqrt(4 / 10))
    inner = TensorName(role=Role.MLP_NORM, layer=0)
    assert copies.widen(inner, gain, old, new).tolist() == [1] * 6


def test_random_values_have_the_root_mean_square_of_the_old_weight() -> None:
    old, new = model_shape(64, (1, 1, 2, 64)), model_shape(64, (1, 1, 2, 512))
    weight = 3 * torch.randn((64, 64), generator=torch.Generator().manual_seed(0))
    wide = RmsPreserving(fan_out="random").widen(UP, weight, old, new)
    assert rms(wide[64:]) == pytest.approx(rms(weight), rel=0.03)
    added = channels(Axis.FFN, 0, old, new).copy > 0
    assert torch.equal(wide[~added], weight)


def test_refuses_zero_on_both_sides() -> None:
    with pytest.raises(ConfigError, match="cannot both be zero"):
        RmsPreserving(fan_out="zero", fan_in="zero")
