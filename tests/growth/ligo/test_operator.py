from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.errors import ConfigError
from megagrow.growth.ligo.kinds import kinds
from megagrow.growth.ligo.operator import Ligo
from megagrow.growth.ligo.settings import LIGO, PRTS, LigoSettings
from megagrow.model.tensors import Role, TensorName
from tests.growth.ligo.reference import reference
from tests.growth.ligo.shapes import Pair, grown, pairs
from tests.growth.width.reference import logits, model_shape, random_model

SETTINGS = st.sampled_from([PRTS, LIGO])


@settings(max_examples=50)
@given(pairs(), SETTINGS, st.integers(0, 99))
def test_tensors_and_gradients_are_those_of_the_plain_formulas(
    pair: Pair, how: LigoSettings, seed: int
) -> None:
    old, new = pair
    ligo = Ligo(old, new, how, seed)
    model = random_model(old, seed)
    exact = {
        name: parameter.detach().double().requires_grad_()
        for name, parameter in ligo.named_parameters()
    }
    expected = reference(exact, {name: each.double() for name, each in model.items()}, old, new)
    found = grown(ligo, model)
    assert set(found) == set(expected)
    generator = torch.Generator().manual_seed(seed)
    gradients = {name: torch.randn(each.shape, generator=generator) for name, each in found.items()}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    for tensors, dtype in ((found, torch.float32), (expected, torch.float64)):
        graph = [name for name, tensor in tensors.items() if tensor.requires_grad]
        torch.autograd.backward(
            [tensors[name] for name in graph], [gradients[name].to(dtype) for name in graph]
        )
    for name, parameter in ligo.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.double(), exact[name].grad, rtol=1e-3, atol=1e-4)


@settings(max_examples=50)
@given(pairs(), SETTINGS)
def test_a_kind_reads_the_parameters_that_get_gradients_from_it(
    pair: Pair, how: LigoSettings
) -> None:
    old, new = pair
    ligo = Ligo(old, new, how)
    model = random_model(old, 0)
    read = set()
    for kind in kinds(old):
        ligo.zero_grad()
        tensors = ligo.grow(kind.role, kind.bias, [model[name] for name in kind.names(old)])
        names = ligo.reads(kind.role, kind.bias)
        assert all(tensor.requires_grad == bool(names) for tensor in tensors)
        if names:
            torch.autograd.backward(tensors, [torch.ones_like(tensor) for tensor in tensors])
        reached = {name for name, each in ligo.named_parameters() if each.grad is not None}
        assert reached == set(names)
        read |= reached
    assert read == {name for name, _ in ligo.named_parameters()}


@settings(max_examples=50)
@given(pairs(), SETTINGS, st.integers(0, 2**40))
def test_first_values_depend_on_the_arguments_alone(
    pair: Pair, how: LigoSettings, seed: int
) -> None:
    old, new = pair
    torch.manual_seed(1)
    before = Ligo(old, new, how, seed).state_dict()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    torch.rand(3)
    after = Ligo(old, new, how, seed).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_differ_between_seeds() -> None:
    old, new = model_shape(4, (2, 1, 2, 3)), model_shape(6, *[(4, 2, 2, 5)] * 2)
    one, two = (Ligo(old, new, LIGO, seed).state_dict() for seed in (0, 1))
    widths = [name for name in one if name.startswith("width.")]
    assert widths == ["width.emb", "width.q", "width.k", "width.v", "width.mlp"]
    assert not any(torch.equal(one[name], two[name]) for name in widths)
    assert all(tensor.dtype == torch.float32 for tensor in one.values())


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["llama", "gpt2"]), st.booleans())
def test_stacked_tensors_are_those_of_g_stack(
    layers: int, more: int, style: str, tied: bool
) -> None:
    layer = (4, 2, 2, 5)
    old = model_shape(6, *[layer] * layers, style=style, tied=tied, qk_norm=True)
    new = model_shape(6, *[layer] * (layers + more), style=style, tied=tied, qk_norm=True)
    model = random_model(old, more)
    for name, tensor in grown(Ligo(old, new, PRTS), model).items():
        source = None if name.layer is None else name.layer % layers
        assert torch.equal(tensor, model[TensorName(role=name.role, layer=source, bias=name.bias)])


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_without_noise_the_first_channels_hold_the_old_weights(style: str) -> None:
    old = model_shape(6, *[(4, 2, 2, 5)] * 2, style=style)
    new = model_shape(9, *[(6, 3, 2, 8)] * 4, style=style)
    ligo = without_noise(Ligo(old, new, PRTS))
    model = random_model(old, 0)
    for name, tensor in grown(ligo, model).items():
        source = None if name.layer is None else name.layer % 2
        before = model[TensorName(role=name.role, layer=source, bias=name.bias)]
        corner = tensor[tuple(slice(size) for size in before.shape)]
        assert torch.equal(corner, before), name
        assert float(tensor.detach().abs().sum()) == pytest.approx(float(before.abs().sum())), name


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("layer", [(8, 4, 4, 12), (6, 3, 4, 7), (4, 2, 4, 9)])
def test_without_noise_added_heads_and_ffn_channels_change_no_logit(
    style: str, layer: tuple[int, int, int, int]
) -> None:
    old = model_shape(6, *[(4, 2, 4, 6)] * 2, style=style)
    new = model_shape(6, *[layer] * 2, style=style)
    model = random_model(old, 0)
    wide = grown(without_noise(Ligo(old, new, PRTS)), model)
    with torch.no_grad():
        expected = logits(model, old)
        torch.testing.assert_close(logits(wide, new), expected, rtol=1e-5, atol=1e-5)


def without_noise(ligo: Ligo) -> Ligo:
    with torch.no_grad():
        for matrix in ligo.width.values():
            matrix.masked_fill_(matrix != 1, 0.0)
    return ligo


def test_new_tensors_share_no_memory_with_old_ones_unless_nothing_changes() -> None:
    layer = (4, 2, 2, 5)
    old, new = (model_shape(6, *[layer] * layers, tied=True) for layers in (2, 4))
    ligo = Ligo(old, new, PRTS)
    model = random_model(old, 0)
    for kind in kinds(old):
        before = [model[name] for name in kind.names(old)]
        after = ligo.grow(kind.role, kind.bias, before)
        if not ligo.reads(kind.role, kind.bias):
            assert after[0] is before[0]
            continue
        pointers = {tensor.untyped_storage().data_ptr() for tensor in after}
        assert len(pointers) == 1
        assert pointers.isdisjoint({each.untyped_storage().data_ptr() for each in before})
        assert len({tensor.data_ptr() for tensor in after}) == 4


def test_old_tensors_are_not_changed_and_low_precision_is_taken() -> None:
    old, new = model_shape(6, (4, 2, 2, 5)), model_shape(8, *[(4, 2, 2, 5)] * 3)
    tensor = random_model(old, 0)[TensorName(role=Role.UP, layer=0)].bfloat16()
    kept = tensor.clone()
    ligo = Ligo(old, new, LIGO)
    wide = ligo.grow(Role.UP, False, [tensor])
    assert [each.dtype for each in wide] == [torch.float32] * 3
    assert torch.equal(tensor, kept)
    assert all(
        torch.equal(one, two)
        for one, two in zip(wide, ligo.grow(Role.UP, False, [tensor.float()]), strict=True)
    )


def test_refuses_other_tensors_than_the_models() -> None:
    old = model_shape(6, *[(4, 2, 2, 5)] * 2)
    ligo = Ligo(old, model_shape(8, *[(4, 2, 2, 5)] * 2), PRTS)
    up = torch.zeros(5, 6)
    with pytest.raises(ValueError, match="1 tensors, expected 2"):
        ligo.grow(Role.UP, False, [up])
    with pytest.raises(ValueError, match="pass it unsplit"):
        ligo.grow(Role.UP, False, [up, up[:3]])
    with pytest.raises(ValueError, match="no MLP up bias"):
        ligo.grow(Role.UP, True, [up[:, 0]] * 2)
    with pytest.raises(ValueError, match="no position embedding"):
        ligo.reads(Role.POSITION_EMBEDDING, False)
    with pytest.raises(ConfigError, match="cannot shrink"):
        Ligo(old, model_shape(4, *[(4, 2, 2, 5)] * 2), PRTS)
