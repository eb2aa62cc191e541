from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from megagrow.errors import ConfigError
from megagrow.growth.lesa.decomposition import decompose
from megagrow.growth.lesa.expansion import predict
from megagrow.growth.lesa.predictor import fit
from megagrow.growth.lesa.settings import LesaSettings

SETTINGS = LesaSettings(hidden_width=8, epochs=2, batch_rows=16)


def drifting(layers: int, out: int, width: int) -> Callable[[float], Tensor]:
    """What a layer at some depth is: a part all share, and one of low rank that turns with depth.

    It comes back to where it began after `layers` layers.
    """
    generator = torch.Generator().manual_seed(0)

    def low_rank() -> Tensor:
        left, right = (torch.randn(size, 4, generator=generator) for size in (out, width))
        return left @ right.T / math.sqrt(4 * width)

    shared = torch.randn(out, width, generator=generator) / math.sqrt(width)
    sine, cosine = low_rank(), low_rank()

    def at(depth: float) -> Tensor:
        angle = 2 * math.pi * depth / layers
        return shared + math.sin(angle) * sine + math.cos(angle) * cosine

    return at


def drawn(layers: int = 5, out: int = 12, width: int = 7) -> list[Tensor]:
    at = drifting(layers, out, width)
    return [at(layer) for layer in range(layers)]


def test_of_layers_that_drift_it_is_nearer_the_true_one_than_a_copy() -> None:
    """Not nearer than the mean of both neighbours, which a smooth drift favours.

    Twelve small layers have few rows: with the published 10 epochs it learns too little to beat a
    copy.
    """
    layers = 12
    at = drifting(layers, 64, 48)
    matrices = [at(layer) for layer in range(layers)]
    pairs = list(range(layers - 1))
    found = predict(matrices, pairs, LesaSettings(epochs=40), held_out=2)
    wanted = torch.stack([at(pair + 0.5) for pair in pairs])
    predicted = float((torch.stack(found.matrices) - wanted).norm())
    copied = float((torch.stack(matrices[:-1]) - wanted).norm())
    assert predicted < 0.6 * copied
    assert found.report.final_loss is not None
    assert found.report.final_loss < 0.01 * found.report.losses[0]
    assert found.report.held_out_loss is not None
    assert found.report.held_out_loss < found.report.losses[0]
    assert all(0.8 < ratio < 1.3 for ratio in found.report.norm_ratios)


def test_it_is_decomposing_learning_and_composing() -> None:
    matrices = drawn()
    found = predict(matrices, [3, 0], SETTINGS, held_out=1)
    parts = decompose(matrices)
    fitted = fit(parts.v, SETTINGS, held_out=1)
    for pair, matrix in zip((3, 0), found.matrices, strict=True):
        wanted = (parts.u * parts.sigma) @ fitted(parts.v[pair], parts.v[pair + 1])
        torch.testing.assert_close(matrix, wanted)
    report = found.report
    assert (report.losses, report.held_out_loss) == (fitted.losses, fitted.held_out_loss)
    assert report.final_loss == fitted.losses[-1]
    assert report.rank == len(parts.sigma)
    assert (report.largest, report.smallest) == (float(parts.sigma[0]), float(parts.sigma[-1]))
    near = (matrices[3].norm() + matrices[4].norm()) / 2
    assert report.norm_ratios[0] == pytest.approx(float(found.matrices[0].norm() / near), rel=1e-4)
    seconds = (report.decomposition_seconds, report.training_seconds, report.prediction_seconds)
    assert min(seconds) > 0


@hypothesis_settings(max_examples=30)
@given(
    layers=st.integers(3, 6),
    out=st.integers(1, 12),
    width=st.integers(1, 12),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    data=st.data(),
)
def test_new_matrices_are_like_the_old_ones(
    layers: int, out: int, width: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (out, width)
    matrices = [torch.randn(shape, generator=generator).to(dtype) for _ in range(layers)]
    pairs = data.draw(st.lists(st.integers(0, layers - 2), min_size=1, unique=True))
    found = predict(matrices, pairs, SETTINGS)
    assert len(found.matrices) == len(found.report.norm_ratios) == len(pairs)
    for matrix in found.matrices:
        assert (matrix.shape, matrix.dtype, matrix.device.type) == (shape, dtype, "cpu")
        assert torch.isfinite(matrix).all()


def test_it_gives_the_same_bits_again() -> None:
    first, second = (predict(drawn(), [0, 2], SETTINGS).matrices for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.filterwarnings("error")
def test_parameters_are_taken_and_no_gradient_follows() -> None:
    matrices = drawn()
    found = predict([nn.Parameter(matrix) for matrix in matrices], [0], SETTINGS).matrices[0]
    assert not found.requires_grad
    assert torch.equal(found, predict(matrices, [0], SETTINGS).matrices[0])


def test_layers_that_are_0_give_0() -> None:
    """As new output projections are after a growth that keeps the function."""
    found = predict([torch.zeros(6, 4, dtype=torch.bfloat16)] * 3, [1], SETTINGS, held_out=0)
    assert torch.equal(found.matrices[0], torch.zeros(6, 4, dtype=torch.bfloat16))
    assert (found.report.rank, found.report.final_loss, found.report.norm_ratios) == (0, None, (1,))


def test_progress_tells_both_phases_to_their_end() -> None:
    told: list[tuple[str, float]] = []
    predict(drawn(), [0], SETTINGS, progress=lambda phase, share: told.append((phase, share)))
    assert told == sorted(told)
    assert dict(told) == pytest.approx({"decomposition": 1.0, "training": 1.0})


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_fewer_than_three_layers_are_refused(layers: int) -> None:
    with pytest.raises(ConfigError, match="3 or more"):
        predict([torch.ones(2, 2)] * layers, [0], SETTINGS)


@pytest.mark.parametrize("pairs", [[], [4], [-1], [0, 0]])
def test_pairs_that_do_not_exist_or_repeat_are_refused(pairs: list[int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        predict(drawn(), pairs, SETTINGS)


def test_layers_of_several_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="matrix 2"):
        predict([torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 3)], [0], SETTINGS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_computes_what_a_cpu_does() -> None:
    """Whatever the caller set for TF32. Singular vectors may differ in sign: V is the same here."""
    matrices = drawn(layers=6, out=300, width=40)
    moved = [matrix.cuda() for matrix in matrices]
    on_cpu = decompose(matrices)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        on_gpu = decompose(moved)
        first, second = (predict(moved, [1, 4], SETTINGS).matrices for _ in range(2))
        for matrix, v in zip(moved, on_gpu.v, strict=True):
            assert float((on_gpu.compose(v) - matrix).norm() / matrix.norm()) < 1e-5
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(on_gpu.sigma.cpu(), on_cpu.sigma, rtol=1e-5, atol=0)
    losses = fit(on_cpu.v, SETTINGS, held_out=1).losses
    assert fit(on_cpu.v.cuda(), SETTINGS, held_out=1).losses == pytest.approx(losses, rel=1e-3)
    assert all(matrix.is_cuda for matrix in first)
    assert all(map(torch.equal, first, second))
