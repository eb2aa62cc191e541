"""Layers that get narrower in one size and wider in another, against plain tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from megagrow.config.schema import ModelConfig, WidthConfig
from megagrow.errors import ConfigError
from megagrow.growth.between import narrowed_shape
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.moments import widened_moment
from megagrow.growth.width.operator import configured
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape, model_shape
from megagrow.model.tensors import Role, TensorName, tensor_names, tensor_shape

OLD = LayerShape(num_attention_heads=6, num_query_groups=3, kv_channels=2, ffn_hidden_size=10)
FEWER = LayerShape(num_attention_heads=2, num_query_groups=2, kv_channels=2, ffn_hidden_size=7)
MIXED = LayerShape(num_attention_heads=10, num_query_groups=5, kv_channels=2, ffn_hidden_size=4)


def shape(*layers: LayerShape) -> ModelShape:
    model = ModelConfig(
        hidden_size=8, num_attention_heads=4, vocab_size=5, vocab_padding=5, seq_length=4,
        qk_norm=True, qkv_bias=True,
    )  # fmt: skip
    return replace(model_shape(model, len(layers)), layers=layers)


def tensors(of: ModelShape) -> dict[TensorName, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor_shape(name, of), generator=generator) for name in tensor_names(of)
    }


def reshape(old: ModelShape, new: ModelShape, name: str = "zero") -> dict[TensorName, torch.Tensor]:
    operator = configured(WidthConfig(operator=name, shrink="first"), Draws())  # type: ignore[arg-type]
    assert operator is not None
    operator.check(old, new)
    return {key: operator.widen(key, each, old, new) for key, each in tensors(old).items()}


def test_what_stays_is_the_first_groups_their_first_heads_and_the_first_channels() -> None:
    old, new = shape(OLD), shape(FEWER)
    before, after = tensors(old), reshape(old, new)

    def of(role: Role, where: dict[TensorName, torch.Tensor], bias: bool = False) -> torch.Tensor:
        return where[TensorName(role=role, layer=0, bias=bias)]

    # Six heads, two to each of three groups: heads 0 and 2 are the first of the first two groups.
    rows = torch.tensor([0, 1, 4, 5])
    assert torch.equal(of(Role.QUERY, after), of(Role.QUERY, before)[rows])
    assert torch.equal(of(Role.QUERY, after, True), of(Role.QUERY, before, True)[rows])
    output = of(Role.ATTENTION_OUTPUT, after)
    assert torch.equal(output, of(Role.ATTENTION_OUTPUT, before)[:, rows])
    for role in (Role.KEY, Role.VALUE):
        assert torch.equal(of(role, after), of(role, before)[:4])
        assert torch.equal(of(role, after, True), of(role, before, True)[:4])
    for role in (Role.GATE, Role.UP):
        assert torch.equal(of(role, after), of(role, before)[:7])
    assert torch.equal(of(Role.DOWN, after), of(Role.DOWN, before)[:, :7])
    for role in (Role.QUERY_NORM, Role.ATTENTION_NORM, Role.MLP_NORM):
        assert torch.equal(of(role, after), of(role, before))


@pytest.mark.parametrize("operator", ["zero", "random", "split", "rms_preserving"])
def test_every_tensor_has_its_new_size(operator: str) -> None:
    old, new = shape(OLD, MIXED, FEWER), shape(MIXED, OLD, FEWER)
    if operator == "zero":  # it keeps the heads to a group
        old, new = shape(OLD, MIXED), shape(MIXED, OLD)
    for name, tensor in reshape(old, new, operator).items():
        assert tuple(tensor.shape) == tensor_shape(name, new), name


def test_a_layer_grows_in_heads_while_its_mlp_shrinks() -> None:
    old, new = shape(OLD), shape(MIXED)
    before, after = tensors(old), reshape(old, new)
    query = TensorName(role=Role.QUERY, layer=0)
    assert torch.equal(after[query][:12], before[query])
    output = TensorName(role=Role.ATTENTION_OUTPUT, layer=0)
    assert torch.equal(after[output][:, :12], before[output])
    down = TensorName(role=Role.DOWN, layer=0)
    assert torch.equal(after[down], before[down][:, :4])


def test_moments_go_with_their_weights() -> None:
    old, new = shape(OLD), shape(FEWER)
    operator = configured(WidthConfig(operator="split", shrink="first"), Draws())
    assert operator is not None
    query = TensorName(role=Role.QUERY, layer=0)
    moment = tensors(old)[query]
    found = widened_moment(operator, "exp_avg", query, moment, old, new, copies=True)
    assert torch.equal(found, moment[torch.tensor([0, 1, 4, 5])])


def test_the_hidden_size_does_not_shrink() -> None:
    old, new = shape(OLD), replace(shape(OLD), hidden_size=4)
    operator = configured(WidthConfig(operator="zero", shrink="first"), Draws())
    assert operator is not None
    with pytest.raises(ConfigError, match="hidden_size cannot shrink from 8 to 4"):
        operator.check(old, new)


def test_without_it_a_narrower_layer_is_refused() -> None:
    operator = configured(WidthConfig(operator="zero"), Draws())
    assert operator is not None
    with pytest.raises(ConfigError, match="cannot shrink"):
        operator.check(shape(OLD), shape(MIXED))


def test_the_model_in_between_is_no_wider_than_either() -> None:
    middle = narrowed_shape(shape(OLD, OLD), shape(FEWER, MIXED)).layers
    assert middle[0] == FEWER
    assert middle[1] == replace(OLD, ffn_hidden_size=4)
