"""New matrices between old ones: decompose, learn, predict, compose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megagrow.growth.lesa.decomposition import Decomposition, decompose
from megagrow.growth.lesa.predictor import Predictor, check_layers, fit
from megagrow.growth.lesa.settings import LesaSettings

Progress = Callable[[str, float], None]
"""Told the phase, `decomposition` or `training`, and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one prediction learned and took."""

    losses: tuple[float, ...]
    """Training loss of each epoch; none where all matrices are 0."""

    held_out_loss: float | None
    """Loss on the held-out triples; None where none were."""

    rank: int
    """Singular values that count."""

    largest: float
    """Largest singular value; 0 where all matrices are 0."""

    smallest: float
    """Smallest singular value that counts."""

    norm_ratios: tuple[float, ...]
    """Frobenius norm of each new matrix, over the mean of its neighbours'. Far from 1, the
    predictor has not learned. 1 where both neighbours are 0."""

    decomposition_seconds: float
    """Until U, sigma and V were there."""

    training_seconds: float
    """Until the predictor was trained."""

    prediction_seconds: float
    """Until the new matrices were there."""

    @property
    def final_loss(self) -> float | None:
        """Training loss of the last epoch."""
        return self.losses[-1] if self.losses else None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """New matrices of one kind."""

    matrices: tuple[Tensor, ...]
    """One for each pair, in the order of the pairs; shape, dtype and device of the old ones."""

    report: Report
    """What it took."""


def predict(
    matrices: Sequence[Tensor],
    pairs: Sequence[int],
    settings: LesaSettings,
    *,
    held_out: int = 0,
    progress: Progress | None = None,
) -> Prediction:
    """Predicts matrices between layers with LESA (arXiv 2502.13794).

    It learns `(V_{i-1}, V_{i+1}) -> V_i` from all triples of layers and applies that to
    `(V_i, V_{i+1})`, neighbours half as far apart, as the paper does. Matrices that are all 0
    give 0.

    Args:
        matrices: [out, in] each: one kind of weight (all queries, say) of every layer, in order, on
            one device, in float32, bfloat16 or float16. They are computed with in float32.
        pairs: i stands for a new matrix between layers i and i + 1, from 0; each at most once.
        settings: how the predictor is trained.
        held_out: triples of layers kept from training, for `Report.held_out_loss`.
        progress: called after every layer and every mini-batch.

    Raises:
        ConfigError: fewer than three layers, or too many triples held out.
        TrainingError: weights, or the predictor's loss, are not finite.
        ValueError: a pair that does not exist or comes twice, or unlike matrices.
    """
    check_layers(len(matrices))
    _check_pairs(pairs, len(matrices))
    told = progress or (lambda phase, share: None)
    begun = time.perf_counter()
    parts = decompose(matrices, lambda share: told("decomposition", share))
    # Reading what a phase computed waits for the GPU to have computed it.
    singular = parts.sigma.tolist()
    decomposed = trained = time.perf_counter()
    fitted = None
    if singular:
        fitted = fit(
            parts.v, settings, held_out=held_out, progress=lambda share: told("training", share)
        )
        trained = time.perf_counter()
    new = tuple(_between(parts, fitted, pair).to(matrices[0].dtype) for pair in pairs)
    ratios = tuple(_norm_ratio(matrices, pair, made) for pair, made in zip(pairs, new, strict=True))
    report = Report(
        losses=fitted.losses if fitted else (),
        held_out_loss=fitted.held_out_loss if fitted else None,
        rank=len(singular),
        largest=singular[0] if singular else 0.0,
        smallest=singular[-1] if singular else 0.0,
        norm_ratios=ratios,
        decomposition_seconds=decomposed - begun,
        training_seconds=trained - decomposed,
        prediction_seconds=time.perf_counter() - trained,
    )
    return Prediction(matrices=new, report=report)


def _between(parts: Decomposition, fitted: Predictor | None, pair: int) -> Tensor:
    left, right = parts.v[pair], parts.v[pair + 1]
    return parts.compose(left if fitted is None else fitted(left, right))


def _norm_ratio(matrices: Sequence[Tensor], pair: int, new: Tensor) -> float:
    left, right, made = (
        float(torch.linalg.vector_norm(matrix.detach(), dtype=torch.float32))
        for matrix in (matrices[pair], matrices[pair + 1], new)
    )
    return 2 * made / (left + right) if left + right else 1.0


def _check_pairs(pairs: Sequence[int], layers: int) -> None:
    wrong = sorted(pair for pair in set(pairs) if not 0 <= pair < layers - 1)
    if wrong:
        raise ValueError(f"pairs {wrong}: {layers} layers have the pairs 0 to {layers - 2}")
    if not pairs or len(set(pairs)) < len(pairs):
        raise ValueError(f"pairs {list(pairs)}: at least one is needed, and each at most once")
