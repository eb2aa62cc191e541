from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from megagrow.errors import ConfigError, TrainingError
from megagrow.growth.lesa.predictor import fit, lesa_loss
from megagrow.growth.lesa.settings import LesaSettings

SETTINGS = LesaSettings(hidden_width=8, epochs=3, batch_rows=16, seed=7)


def draw(layers: int = 6, rank: int = 10, width: int = 5) -> Tensor:
    return torch.randn(layers, rank, width, generator=torch.Generator().manual_seed(3))


def reference_loss(predicted: Tensor, target: Tensor, norm_weight: float) -> Tensor:
    """The formula, spelled out."""
    squares = ((predicted - target) ** 2).sum() / predicted.numel()
    norms = (predicted**2).sum().sqrt() - (target**2).sum().sqrt()
    return (1 - norm_weight) * squares + norm_weight * norms**2


@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 6),
    norm_weight=st.sampled_from([0.0, 5e-5, 5e-4, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_loss_is_the_formula(rows: int, width: int, norm_weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, target = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        lesa_loss(predicted, target, norm_weight), reference_loss(predicted, target, norm_weight)
    )


def reference_network(width: int, hidden: int, seed: int) -> nn.Sequential:
    """Torch's default initialization, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(2 * width, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, width),
    )  # fmt: skip
    for linear in (network[0], network[2], network[4]):
        assert isinstance(linear, nn.Linear)
        bound = linear.in_features**-0.5
        nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
        nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
    return network


def test_training_is_that_of_a_plain_loop_over_all_triples() -> None:
    """In one mini-batch an epoch: the order of rows does not matter."""
    v = draw()
    settings = replace(SETTINGS, epochs=5, batch_rows=1000, norm_weight=0.01)
    network = reference_network(5, settings.hidden_width, settings.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    inputs = torch.cat([torch.cat((v[i - 1], v[i + 1]), dim=1) for i in range(1, 5)])
    targets = torch.cat([v[i] for i in range(1, 5)])
    losses = []
    for _ in range(5):
        loss = reference_loss(network(inputs), targets, 0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = fit(v, settings)
    assert found.losses == pytest.approx(losses, rel=1e-5)
    assert found.losses[-1] < found.losses[0]
    wanted = network(torch.cat((v[2], v[3]), dim=1)).detach()
    torch.testing.assert_close(found(v[2], v[3]), wanted, rtol=1e-4, atol=1e-5)


def test_an_epoch_sees_every_row_once() -> None:
    """Without learning and norm term, the mean over equal batches is the mean over all rows."""
    v = draw()
    settings = replace(SETTINGS, epochs=1, norm_weight=0.0, learning_rate=1e-30, batch_rows=8)
    found = fit(v, settings)
    predicted = torch.cat([found(v[i - 1], v[i + 1]) for i in range(1, 5)])
    wanted = float(((predicted - torch.cat(list(v[1:5]))) ** 2).mean())
    assert found.losses == pytest.approx([wanted], rel=1e-5)


def test_the_result_depends_on_the_seed_and_not_on_the_global_generator() -> None:
    v = draw()
    torch.manual_seed(1)
    first = fit(v, SETTINGS, held_out=1)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = fit(v, SETTINGS, held_out=1)
    assert first.losses == second.losses
    assert first.held_out_loss == second.held_out_loss
    assert torch.equal(first(v[0], v[1]), second(v[0], v[1]))
    assert fit(v, replace(SETTINGS, seed=8)).losses != first.losses
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_held_out_triples_are_measured_and_not_learned() -> None:
    """Layers far apart in size: which triple was held out shows in its loss."""
    v = draw(layers=5) * 10.0 ** torch.arange(5)[:, None, None]
    settings = replace(SETTINGS, batch_rows=1000, norm_weight=0.1, learning_rate=1e-30, epochs=1)
    found = fit(v, settings, held_out=1)
    losses = [
        float(lesa_loss(found(v[i - 1], v[i + 1]), v[i], settings.norm_weight)) for i in (1, 2, 3)
    ]
    assert found.held_out_loss is not None
    (held,) = [i for i in range(3) if found.held_out_loss == pytest.approx(losses[i], rel=1e-5)]
    seen = [i for i in (1, 2, 3) if i != held + 1]
    inputs = [torch.cat([v[i + step] for i in seen]) for step in (-1, 1)]
    wanted = lesa_loss(found(*inputs), torch.cat([v[i] for i in seen]), settings.norm_weight)
    assert found.losses == pytest.approx([float(wanted)], rel=1e-5)


def test_nothing_held_out_has_no_loss_of_it() -> None:
    assert fit(draw(), SETTINGS).held_out_loss is None


def test_it_learns_where_the_caller_computes_no_gradients() -> None:
    with torch.no_grad():
        found = fit(draw(), SETTINGS)
    assert found.losses == fit(draw(), SETTINGS).losses


def test_progress_ends_at_1() -> None:
    told: list[float] = []
    fit(draw(), SETTINGS, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 3 * 3  # epochs x mini-batches: 40 rows by 16


@pytest.mark.parametrize("layers", [1, 2])
def test_fewer_than_three_layers_teach_nothing(layers: int) -> None:
    with pytest.raises(ConfigError, match=f"has {layers} layers, it needs 3"):
        fit(draw(layers=layers), SETTINGS)


@pytest.mark.parametrize("held_out", [-1, 4, 5])
def test_a_triple_must_be_left_to_learn_from(held_out: int) -> None:
    with pytest.raises(ConfigError, match=f"{held_out} triples are held out of 4"):
        fit(draw(), SETTINGS, held_out=held_out)


def test_a_predictor_that_diverges_is_an_error() -> None:
    with pytest.raises(TrainingError, match="learning rate"):
        fit(draw(), replace(SETTINGS, learning_rate=1e30))
