from __future__ import annotations

import pytest
import torch

from megagrow.growth.width.draws import Draws
from megagrow.growth.width.hyperclone import HyperClone
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import grown, model_shape, random_model

DOWN = TensorName(role=Role.DOWN, layer=0)


def test_weights_are_tiled_and_divided_by_how_much_their_inputs_grow() -> None:
    old, new = model_shape(2, (2, 1, 2, 2)), model_shape(4, (4, 2, 2, 6))
    weight = torch.tensor([[3.0, 6.0], [9.0, 12.0]])
    assert torch.equal(HyperClone().widen(DOWN, weight, old, new), weight.repeat(2, 3) / 3)
    model = random_model(old, 0)
    wide = grown(HyperClone(), model, old, new)
    for role, expected in (
        (Role.TOKEN_EMBEDDING, lambda x: x.repeat(1, 2)),
        (Role.OUTPUT, lambda x: x.repeat(1, 2) / 2),
        (Role.FINAL_NORM, lambda x: x.repeat(2)),
        (Role.QUERY, lambda x: x.repeat(2, 2) / 2),
        (Role.ATTENTION_OUTPUT, lambda x: x.repeat(2, 2) / 2),
    ):
        name = TensorName(role=role, layer=None if role is not Role.QUERY else 0)
        name = name if name in model else TensorName(role=role, layer=0)
        assert torch.equal(wide[name], expected(model[name])), name


@pytest.mark.parametrize("times", [2, 3, 4])
def test_noise_cancels_between_pairs_of_copies_at_the_ratio_asked_for(times: int) -> None:
    old, new = model_shape(64, (1, 1, 2, 128)), model_shape(64, (1, 1, 2, 128 * times))
    weight = random_model(old, 0)[DOWN]
    clean = HyperClone().widen(DOWN, weight, old, new)
    noise = HyperClone(snr_db=10.0, draws=Draws(seed=1)).widen(DOWN, weight, old, new) - clean
    blocks = noise.view(64, times, 128)
    for pair in range(times // 2):
        first, second = blocks[:, 2 * pair], blocks[:, 2 * pair + 1]
        torch.testing.assert_close(first, -second, rtol=0, atol=1e-6)
        ratio = clean.square().mean() / first.square().mean()
        assert float(10 * ratio.log10()) == pytest.approx(10.0, abs=0.2)
    assert (blocks[:, -1] == 0).all() == (times == 3)
    if times == 4:
        assert not torch.allclose(blocks[:, 0], blocks[:, 2])


def test_only_linear_layers_with_more_inputs_are_noisy() -> None:
    old = model_shape(4, (2, 1, 2, 3), style="gpt2", tied=True)
    new = model_shape(8, (2, 1, 2, 3), style="gpt2", tied=True)
    model = random_model(old, 0)
    clean = grown(HyperClone(), model, old, new)
    noisy = grown(HyperClone(snr_db=0.0), model, old, new)
    changed = {name.role for name, tensor in noisy.items() if not torch.equal(tensor, clean[name])}
    assert changed == {Role.QUERY, Role.KEY, Role.VALUE, Role.UP}
