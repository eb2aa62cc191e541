from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megagrow.errors import TrainingError
from megagrow.growth.lesa.decomposition import SMALLEST_RATIO, decompose, full_float32

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def draw(layers: int, out: int, width: int, rank: int = 0, seed: int = 0) -> list[Tensor]:
    """Random matrices; with a rank, their columns all lie in one space of that size."""
    generator = torch.Generator().manual_seed(seed)
    if not rank:
        return [torch.randn(out, width, generator=generator) for _ in range(layers)]
    basis = torch.randn(out, rank, generator=generator)
    return [basis @ torch.randn(rank, width, generator=generator) for _ in range(layers)]


def with_spectrum(layers: int, out: int, width: int, sigma: Tensor) -> list[Tensor]:
    """Matrices that have these singular values, side by side."""
    generator = torch.Generator().manual_seed(1)

    def orthonormal(rows: int, columns: int) -> Tensor:
        wide = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(wide).Q

    left = orthonormal(out, len(sigma))
    right = orthonormal(layers * width, len(sigma))
    return list(((left * sigma) @ right.T).float().split(width, dim=1))


def error(found: Tensor, wanted: Tensor, scale: Tensor) -> float:
    return float((found - wanted.float()).norm() / scale.float().norm())


@given(
    layers=st.integers(1, 6),
    out=st.integers(1, 40),
    width=st.integers(1, 40),
    rank=st.integers(0, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_every_matrix_comes_back(
    layers: int, out: int, width: int, rank: int, dtype: torch.dtype, seed: int
) -> None:
    matrices = [matrix.to(dtype) for matrix in draw(layers, out, width, rank, seed)]
    found = decompose(matrices)
    most = min(out, layers * width)
    assert 1 <= len(found.sigma) <= most
    assert found.v.shape == (layers, len(found.sigma), width)
    assert found.u.dtype == found.sigma.dtype == found.v.dtype == torch.float32
    for matrix, v in zip(matrices, found.v, strict=True):
        assert error(found.compose(v), matrix, torch.cat(matrices, dim=1)) < 1e-5
    if rank and dtype is torch.float32:
        assert len(found.sigma) == min(rank, most)


@pytest.mark.parametrize(("layers", "out", "width"), [(5, 24, 40), (3, 40, 10), (4, 600, 200)])
def test_same_as_torch_svd(layers: int, out: int, width: int) -> None:
    """Also where out > layers x in, and where the Gram matrix is summed in several blocks."""
    matrices = draw(layers, out, width)
    u, sigma, vt = torch.linalg.svd(torch.cat(matrices, dim=1).double(), full_matrices=False)
    found = decompose(matrices)
    torch.testing.assert_close(found.sigma.double(), sigma, rtol=1e-5, atol=0)
    signs = (found.u.double() * u).sum(0)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs), rtol=0, atol=1e-4)
    ours = torch.cat(list(found.v), dim=1).double() * signs[:, None]
    torch.testing.assert_close(ours, vt, rtol=0, atol=1e-4)
    torch.testing.assert_close((found.u.double() * signs), u, rtol=0, atol=1e-4)


def test_a_layer_far_smaller_than_the_others_comes_back_to_its_own_precision() -> None:
    matrices = draw(4, 24, 32)
    matrices[1] *= 1e-5
    found = decompose(matrices)
    assert error(found.compose(found.v[1]), matrices[1], matrices[1]) < 1e-5


def test_small_singular_values_are_right_and_the_smallest_are_dropped() -> None:
    # A factor of 3 away from the limit on both sides.
    sigma = torch.tensor([1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 3e-6, 3e-7, 1e-8]).double()
    matrices = with_spectrum(4, 30, 20, sigma)
    found = decompose(matrices)
    wanted = sigma[sigma > SMALLEST_RATIO]
    # Float32 inputs are off by 6e-8 of their size: that much for each singular value.
    torch.testing.assert_close(found.sigma.double(), wanted, rtol=1e-5, atol=1e-7)
    for matrix, v in zip(matrices, found.v, strict=True):
        assert error(found.compose(v), matrix, torch.cat(matrices, dim=1)) < 1e-6
    rows = torch.cat(list(found.v), dim=1)[:5]
    torch.testing.assert_close(rows @ rows.T, torch.eye(5), rtol=0, atol=2e-3)


def test_matrices_that_are_0_have_rank_0() -> None:
    found = decompose([torch.zeros(5, 3)] * 4)
    assert found.u.shape == (5, 0)
    assert found.v.shape == (4, 0, 3)
    assert torch.equal(found.compose(found.v[0]), torch.zeros(5, 3))


def test_half_precision_is_computed_with_in_float32() -> None:
    """Squares of these leave the range of float16."""
    matrices = [(matrix * 1000).half() for matrix in draw(3, 8, 12)]
    found = decompose(matrices)
    wanted = torch.linalg.svdvals(torch.cat(matrices, dim=1).double())
    torch.testing.assert_close(found.sigma.double(), wanted, rtol=1e-5, atol=0)


def test_arguments_and_the_precision_of_products_are_left_as_they_were() -> None:
    matrices = draw(3, 8, 12)
    copies = [matrix.clone() for matrix in matrices]
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        wanted = getattr(matmul, name)
        with full_float32():
            assert getattr(matmul, name) != wanted
        decompose(matrices)
        assert getattr(matmul, name) == wanted
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(map(torch.equal, matrices, copies))


def test_progress_goes_up_to_1() -> None:
    told: list[float] = []
    decompose(draw(3, 4, 5), told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ([], "no matrices"),
        ([torch.zeros(3)], r"\[out, in\]"),
        ([torch.zeros(0, 3)], r"\[out, in\]"),
        ([torch.zeros(3, 2, dtype=torch.int64)], "torch.int64"),
        ([torch.zeros(3, 2), torch.zeros(2, 3)], "matrix 1"),
        ([torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2).half()], "matrix 2"),
        ([torch.zeros(3, 2), torch.zeros(3, 2, device="meta")], "matrix 1"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(matrices: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decompose(matrices)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_layers_that_are_not_finite_are_named(value: float) -> None:
    matrices = draw(4, 5, 6)
    matrices[2][3, 1] = value
    with pytest.raises(TrainingError, match=r"layers \[2\]"):
        decompose(matrices)
