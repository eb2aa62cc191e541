"""The network that predicts a layer's V from those of its neighbours, and its training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megagrow.errors import ConfigError, TrainingError
from megagrow.growth.lesa.settings import LesaSettings

LEAST_LAYERS = 3
"""Layers that make one triple to learn from."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictor:
    """A trained predictor."""

    network: nn.Sequential
    """[rows, 2 x in] -> [rows, in]."""

    losses: tuple[float, ...]
    """Of each epoch, the mean over its mini-batches."""

    held_out_loss: float | None
    """After the last epoch, the mean over mini-batches of the triples kept from training."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """V of a layer between two, row by row.

        Args:
            left: [rows, in], the V of the layer before.
            right: [rows, in], the V of the layer after.

        Returns:
            [rows, in].
        """
        with torch.no_grad():
            predicted: Tensor = self.network(torch.cat((left, right), dim=1))
        return predicted


def lesa_loss(predicted: Tensor, target: Tensor, norm_weight: float) -> Tensor:
    """`(1 - lambda) mse + lambda (|predicted| - |target|)^2` (arXiv 2502.13794, train_LESA.ipynb).

    Args:
        predicted: [rows, in].
        target: [rows, in].
        norm_weight: lambda. The norms are Frobenius norms of the whole mini-batch.
    """
    norms = (torch.linalg.vector_norm(predicted) - torch.linalg.vector_norm(target)).square()
    loss: Tensor = (1 - norm_weight) * F.mse_loss(predicted, target) + norm_weight * norms
    return loss


def fit(
    v: Tensor,
    settings: LesaSettings,
    *,
    held_out: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Predictor:
    """Trains a predictor on the rows of all triples `(V_{i-1}, V_{i+1}) -> V_i`.

    Rows are taken as they are, without scaling, as in the authors' notebook. The result depends on
    the arguments only, not on torch's global generators.

    Args:
        v: [layers, rank, in], float32.
        settings: how.
        held_out: triples that are kept from training, to tell learning from remembering. Their
            layers still appear in other triples.
        progress: told the share done, from 0 to 1.

    Raises:
        ConfigError: fewer than three layers, or as many triples held out as there are.
        TrainingError: the loss is not finite.
    """
    triples = len(v) - 2
    check_layers(len(v))
    if not 0 <= held_out < triples:
        raise ConfigError(
            f"LESA: {held_out} triples are held out of {triples}, that {len(v)} layers make; at "
            "least one must be left to train on"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    network = _network(v.shape[2], settings.hidden_width, generator).to(v.device)
    order = torch.randperm(triples, generator=generator)
    kept, seen = _samples(order[:held_out], v), _samples(order[held_out:], v)
    told = progress or (lambda share: None)
    losses: list[float] = []
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        for epoch in range(settings.epochs):
            shuffled = seen[torch.randperm(len(seen), generator=generator)]
            batches = shuffled.to(v.device).split(settings.batch_rows)
            total = torch.zeros((), device=v.device)
            for index, batch in enumerate(batches):
                loss = _batch_loss(network, v, batch, settings.norm_weight)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
                told((epoch + (index + 1) / len(batches)) / settings.epochs)
            losses.append(_finite(float(total) / len(batches), epoch))
    return Predictor(
        network=network,
        losses=tuple(losses),
        held_out_loss=_mean_loss(network, v, kept, settings) if held_out else None,
    )


def check_layers(layers: int) -> None:
    """Refuses a model of which LESA cannot learn.

    Raises:
        ConfigError: fewer than three layers.
    """
    if layers < LEAST_LAYERS:
        raise ConfigError(
            f"LESA learns how a layer follows from both its neighbours: the model has {layers} "
            f"layers, it needs {LEAST_LAYERS} or more. Grow with stack or interleave first"
        )


def _network(width: int, hidden: int, generator: torch.Generator) -> nn.Sequential:
    """Layers with torch's default initialization, drawn from our generator on the CPU."""
    sizes = (2 * width, hidden, hidden, width)
    linears = [nn.utils.skip_init(nn.Linear, into, out) for into, out in itertools.pairwise(sizes)]
    with torch.no_grad():
        for linear in linears:
            bound = 1 / math.sqrt(linear.in_features)
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.uniform_(-bound, bound, generator=generator)
    first, second, third = linears
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


def _samples(triples: Tensor, v: Tensor) -> Tensor:
    """Numbers of the rows of `v`, seen as [layers x rank, in], in the middle of the triples."""
    rank = v.shape[1]
    return ((triples[:, None] + 1) * rank + torch.arange(rank)).flatten()


def _batch_loss(network: nn.Module, v: Tensor, batch: Tensor, norm_weight: float) -> Tensor:
    rank = v.shape[1]
    rows = v.flatten(0, 1)
    neighbours = torch.cat((rows[batch - rank], rows[batch + rank]), dim=1)
    return lesa_loss(network(neighbours), rows[batch], norm_weight)


def _mean_loss(network: nn.Module, v: Tensor, samples: Tensor, settings: LesaSettings) -> float:
    with torch.no_grad():
        losses = [
            _batch_loss(network, v, batch, settings.norm_weight)
            for batch in samples.to(v.device).split(settings.batch_rows)
        ]
        return float(torch.stack(losses).mean())


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"LESA: the predictor's loss is {loss} in epoch {epoch + 1}; lower its learning rate"
        )
    return loss
