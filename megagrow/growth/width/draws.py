"""What an operator draws: a function of the seed, the tensor's name and the element's place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from megagrow.config.schema import InitConfig
from megagrow.kernels import Combination, Noise, combine_segments
from megagrow.model.initialisation import scheme_deviation
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import NORMS, RESIDUAL_OUTPUTS, Role, TensorName, tensor_shape
from megagrow.runtime import seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Where random values come from."""

    seed: int = 0
    """The run's seed."""

    init: InitConfig = field(default_factory=InitConfig)
    """How the tensors of a new model are drawn."""

    def normal(
        self, name: TensorName, size: tuple[int, ...], std: float, device: torch.device
    ) -> Tensor:
        """N(0, std^2) in float32: element i, counted in row-major order, has counter i.

        Args:
            name: the tensor it is for, which with the seed keys the generator.
            size: shape of the result.
            std: standard deviation.
            device: where to draw; every device gives the same values.
        """
        drawn = torch.empty(size, dtype=torch.float32, device=device)
        none, zero = np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
        whole = Combination(
            destination=zero,
            destination_start=zero,
            length=np.array([drawn.numel()], dtype=np.int64),
            first=np.zeros(2, dtype=np.int64),
            source=none,
            source_start=none,
            weight=np.empty(0, dtype=np.float32),
        )
        key = seeds.seed_for(self.seed, "width", name.role.value, _layer(name), int(name.bias))
        noise = Noise(
            seed=key,
            std=np.array([std], dtype=np.float32),
            start=np.zeros(1, dtype=np.uint64),
        )
        combine_segments(whole, [], [drawn.view(-1)], noise=noise)
        return drawn

    def fresh(self, name: TensorName, shape: ModelShape, like: Tensor) -> Tensor:
        """A tensor as a new model of `shape` has it: normal; a gain 1, a bias 0.

        Args:
            name: the tensor.
            shape: the model.
            like: gives dtype and device.
        """
        size = tensor_shape(name, shape)
        if name.bias or name.role in NORMS:
            value = 1.0 if not name.bias else 0.0
            return torch.full(size, value, dtype=like.dtype, device=like.device)
        std = standard_deviation(name.role, size[-1], shape, self.init)
        return self.normal(name, size, std, like.device).to(like.dtype)


def standard_deviation(role: Role, inputs: int, shape: ModelShape, init: InitConfig) -> float:
    """Standard deviation of the first values of a weight, which has two dimensions.

    Args:
        role: what the weight does.
        inputs: its last dimension: input features, or the hidden size for an embedding.
        shape: the whole model.
        init: scheme and standard deviation.
    """
    return scheme_deviation(
        inputs,
        shape.num_layers,
        init,
        residual_output=role in RESIDUAL_OUTPUTS,
        mlp_output=role is Role.DOWN,
    )


def _layer(name: TensorName) -> int:
    return -1 if name.layer is None else name.layer
