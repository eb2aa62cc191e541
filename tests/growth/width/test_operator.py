from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from megagrow.errors import ConfigError
from megagrow.growth.width.checks import check_width
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.hyperclone import HyperClone
from megagrow.growth.width.operator import OPERATORS, width_operator
from megagrow.growth.width.split import Split
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import grown, logits, model_shape, random_model

DRAWS = Draws(seed=1)
OLD = model_shape(4, (4, 2, 2, 6))
REFUSED = {("zero", "gpt2")}
"""Operators and styles that do not let the hidden size grow."""


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("name", OPERATORS)
def test_doubling_is_supported_or_refused_by_name(
    name: str, style: str, tied: bool, groups: int
) -> None:
    old = model_shape(4, (4, groups, 2, 6), style=style, tied=tied)
    new = model_shape(8, (8, 2 * groups, 2, 12), style=style, tied=tied)
    operator = width_operator(name, DRAWS)
    if (name, style) in REFUSED:
        with pytest.raises(ConfigError, match="hidden_size must stay 4, not 8: LayerNorm"):
            operator.check(old, new)
        return
    assert logits(grown(operator, random_model(old, 0), old, new), new).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", OPERATORS)
def test_keeps_the_dtype(name: str, dtype: torch.dtype) -> None:
    new = model_shape(8, (8, 4, 2, 12))
    grown(width_operator(name, DRAWS), random_model(OLD, 0, dtype), OLD, new)


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "double"])
def test_no_growth_changes_nothing(name: str) -> None:
    model = random_model(OLD, 0)
    for key, tensor in grown(width_operator(name, DRAWS), model, OLD, OLD).items():
        assert torch.equal(tensor, model[key])


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("split", replace(OLD, hidden_size=3), "split: hidden_size cannot shrink from 4 to 3"),
        ("split", model_shape(4, (4, 2, 4, 6)), "kv_channels of layer 0 must stay 2, not 4"),
        ("split", replace(OLD, layers=OLD.layers * 2), "1 -> 2 layers: it changes widths alone"),
        ("split", replace(OLD, tie_embeddings=True), "tie_embeddings must stay False, not True"),
        ("split", replace(OLD, seq_length=9), "seq_length must stay 6, not 9"),
        ("split", model_shape(4, (4, 3, 2, 6)), "cannot be shared out over 3 groups; nearest: 3"),
        ("split", model_shape(4, (6, 3, 2, 6)), None),
        ("rms_preserving", model_shape(4, (4, 4, 2, 6)), None),
        ("hyperclone", model_shape(10, (4, 2, 2, 6)), "10 is no multiple of 4; nearest: 8"),
        ("hyperclone", model_shape(8, (4, 2, 2, 8)), "ffn_hidden_size of layer 0: 8 is no"),
        ("hyperclone", model_shape(8, (8, 4, 4, 6)), "kv_channels of layer 0 must stay 2, not 4"),
        ("hyperclone", model_shape(8, (8, 2, 2, 6)), None),
        ("double", model_shape(12, (8, 4, 2, 12)), "hidden_size must go from 4 to 8, not 12"),
        ("double", model_shape(8, (8, 2, 2, 12)), "num_query_groups of layer 0 must go from 2"),
        ("double", replace(OLD, layers=OLD.layers * 2), "1 -> 2 layers"),
        ("zero", model_shape(4, (8, 2, 2, 6)), "keeps 2 to a group.* 8 heads in 4 groups"),
        ("random", model_shape(4, (4, 4, 2, 6)), "keeps 2 to a group.* 4 heads in 2 groups"),
    ],
)  # fmt: skip
def test_refuses(name: str, new: ModelShape, message: str | None) -> None:
    operator = width_operator(name, DRAWS)
    if message is None:
        operator.check(OLD, new)
        return
    with pytest.raises(ConfigError, match=message):
        operator.check(OLD, new)


def test_refuses_to_leave_a_query_head_behind() -> None:
    """Three groups hold two copies of the first old group's key, but one of the second's."""
    old, new = model_shape(4, (8, 2, 2, 6)), model_shape(4, (9, 3, 2, 6))
    with pytest.raises(ConfigError, match="at least 12 heads"):
        Split().check(old, new)
    Split().check(old, model_shape(4, (12, 3, 2, 6)))


def test_shapes_are_checked_without_torch() -> None:
    code = "import sys, megagrow.growth.width.checks; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_names_and_options() -> None:
    assert width_operator("hyperclone", DRAWS, snr_db=5.0) == HyperClone(snr_db=5.0, draws=DRAWS)
    assert width_operator("split", DRAWS) == Split()
    with pytest.raises(ConfigError, match="no width operator 'tile'; one of: split, zero"):
        width_operator("tile", DRAWS)
    with pytest.raises(ConfigError, match="no width operator 'tile'; one of: split, zero"):
        check_width("tile", OLD, OLD)
    for name in OPERATORS:
        width_operator(name, DRAWS)
        check_width(name, OLD, model_shape(8, (8, 4, 2, 12)))
    with pytest.raises(ConfigError, match="split: no option 'beta'; it has: alpha, scale_norms"):
        width_operator("split", DRAWS, beta=0.1)


def test_a_part_of_a_tensor_is_refused() -> None:
    new = model_shape(8, (8, 4, 2, 12))
    for name in OPERATORS:
        with pytest.raises(ValueError, match="pass it unsplit"):
            width_operator(name, DRAWS).widen(
                TensorName(role=Role.UP, layer=0), torch.zeros(3, 4), OLD, new
            )
