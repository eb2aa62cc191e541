"""The singular value decomposition that the layers of one kind of matrix share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from megagrow.errors import TrainingError

SMALLEST_RATIO = 1e-6
"""Singular values at or below this share of the largest are dropped. Ours: the Gram matrix in
float64 resolves about 1e-8, and a row of V that belongs to less than 1e-6 is rounding noise of the
float32 product it comes from."""

WELL_CONDITIONED = 0.03
"""Share of the largest singular value that all must have for a Gram matrix of float32 products to
do: it is right to about 1e-7 of its largest eigenvalue, so its smallest are right to 1e-4."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decomposition:
    """`W_i = U diag(sigma) V_i` for the matrices `W_i` of all layers, in float32.

    U and sigma are those of `[W_1 .. W_L]`, all layers side by side (arXiv 2502.13794).
    """

    u: Tensor
    """[out, rank]: orthonormal columns."""

    sigma: Tensor
    """[rank]: singular values, descending, all above 0."""

    v: Tensor
    """[layers, rank, in]; the rows of all layers side by side are orthonormal."""

    def compose(self, v: Tensor) -> Tensor:
        """`U diag(sigma) v`: the weights that belong to `v`.

        Args:
            v: [rank, in], of a layer or predicted.

        Returns:
            [out, in], float32.
        """
        with torch.no_grad(), full_float32():
            return (self.u * self.sigma) @ v


def decompose(
    matrices: Sequence[Tensor], progress: Callable[[float], None] | None = None
) -> Decomposition:
    """Decomposes `[W_1 .. W_L]` without building it.

    `M M^T`, of size [out, out], is summed layer by layer; its eigenvectors are U and the roots of
    its eigenvalues sigma. Each layer's products are of float32, and the sum is made again of
    float64 ones where singular values turn out to be small (`WELL_CONDITIONED`). `V_i =
    diag(sigma)^-1 U^T W_i`. As U is orthogonal whatever the eigenvalues' errors, `compose(v[i])`
    gives back `W_i` but for float32 rounding and for what is dropped: singular values up to
    `SMALLEST_RATIO` of the largest, such as those beyond the `layers x in` that there can be.

    Memory, beyond the matrices: on a CPU about `32 out^2` bytes while eigenvectors are found, then
    `4 out^2 + 4 layers x out x in`.

    Args:
        matrices: [out, in] each, on one device, float32, bfloat16 or float16.
        progress: told the share done, from 0 to 1.

    Raises:
        ValueError: matrices of several shapes, dtypes or devices, or of another dtype.
        TrainingError: weights that are not finite.
    """
    _check(matrices)
    told = progress or (lambda share: None)
    layers, (out, width) = len(matrices), matrices[0].shape
    with torch.no_grad(), full_float32():
        u, sigma = _left(matrices, torch.float32, lambda share: told(share / 3))
        if len(sigma) < out or sigma[-1] < WELL_CONDITIONED * sigma[0]:
            u, sigma = _left(matrices, torch.float64, lambda share: told((1 + share) / 3))
        told(2 / 3)
        v = torch.empty(layers, len(sigma), width, dtype=torch.float32, device=u.device)
        rows = (u / sigma).T.contiguous()
        for index, matrix in enumerate(matrices):
            torch.matmul(rows, matrix.float(), out=v[index])
            told(2 / 3 + (index + 1) / (3 * layers))
    return Decomposition(u=u, sigma=sigma, v=v)


def _check(matrices: Sequence[Tensor]) -> None:
    if not matrices:
        raise ValueError("there are no matrices to decompose")
    first = matrices[0]
    if first.ndim != 2 or not first.numel() or first.dtype not in _DTYPES:
        raise ValueError(
            "matrices must be [out, in] in float32, bfloat16 or float16; the first is "
            f"{list(first.shape)} in {first.dtype}"
        )
    for index, matrix in enumerate(matrices):
        same = (matrix.shape, matrix.dtype, matrix.device)
        if same != (first.shape, first.dtype, first.device):
            raise ValueError(
                f"matrix {index} is {list(matrix.shape)}, {matrix.dtype} on {matrix.device}, the "
                f"first {list(first.shape)}, {first.dtype} on {first.device}: they must be alike"
            )


def _refuse_not_finite(matrices: Sequence[Tensor]) -> NoReturn:
    wrong = [layer for layer, matrix in enumerate(matrices) if not torch.isfinite(matrix).all()]
    raise TrainingError(
        f"LESA: weights of layers {wrong} (from 0) are not finite; grow from an earlier checkpoint"
    )


def _left(
    matrices: Sequence[Tensor], dtype: torch.dtype, told: Callable[[float], None]
) -> tuple[Tensor, Tensor]:
    """U and the singular values that count, largest first, from products of `dtype`."""
    first = matrices[0]
    gram = torch.zeros(len(first), len(first), dtype=torch.float64, device=first.device)
    for index, matrix in enumerate(matrices):
        _add_gram(gram, matrix.to(dtype))
        told((index + 1) / len(matrices))
    if not torch.isfinite(gram.diagonal()).all():
        _refuse_not_finite(matrices)
    squares, vectors = torch.linalg.eigh(gram, UPLO="L")
    sigma = squares.clamp_(min=0).sqrt_().flip(0)
    rank = int((sigma > SMALLEST_RATIO * sigma[0]).sum())
    u = vectors[:, len(vectors) - rank :].float().flip(1)
    return u.contiguous(), sigma[:rank].float()


def _add_gram(gram: Tensor, matrix: Tensor) -> None:
    """Adds `W W^T` to the lower triangle, in blocks of rows: what is above it is not read."""
    size = max(256, -(-len(gram) // 8))
    for start in range(0, len(gram), size):
        end = min(start + size, len(gram))
        gram[start:end, :end] += matrix[start:end] @ matrix[:end].T


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products on CUDA without TF32, which would make the round trip good to 1e-3 only."""
    matmul = torch.backends.cuda.matmul
    # The second name is that of torch before 2.9; the new one may not be mixed with it.
    new = hasattr(matmul, "fp32_precision")
    name, full = ("fp32_precision", "ieee") if new else ("allow_tf32", False)
    before = getattr(matmul, name)
    setattr(matmul, name, full)
    try:
        yield
    finally:
        setattr(matmul, name, before)
