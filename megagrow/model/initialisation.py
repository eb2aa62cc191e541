"""First weights, the same bit for bit in every parallel layout.

Each tensor of the model is drawn whole, from a generator seeded with the run's seed and the
tensor's checkpoint key, and every rank keeps the part that it owns. Nothing is communicated.

The price is that tensor-parallel ranks draw more than they keep: with a tensor-parallel size of
``t``, each draws its layers' weights ``t`` times over in time, one whole fp32 tensor at a time in
memory (the largest is the embedding). Drawing slices would be cheaper and wrong: a generator does
not give a slice the values that the slice of a whole tensor has. CPU and GPU generators differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories
from megatron.core.dist_checkpointing.utils import nested_values
from megatron.core.utils import unwrap_model

from megagrow.config.schema import InitConfig
from megagrow.model.shape import ModelShape
from megagrow.runtime import seeds

#: What makes megatron-core give every layer its own keys (``decoder.layers.N.``), and the two
#: halves of a SwiGLU projection a key each (``..._w`` and ``..._v``).
KEYS_PER_LAYER: dict[str, Any] = {"singleton_local_shards": True}

_RESIDUAL_OUTPUTS = ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight")


def initialise(
    chunks: Sequence[torch.nn.Module],
    shape: ModelShape,
    init: InitConfig,
    seed: int,
    only: Callable[[str], bool] | None = None,
) -> None:
    """Draw the weights of this rank's model chunks.

    Wrapped chunks (``Float16Module``, ``DistributedDataParallel``) are written through to the
    model; an optimizer made before has to reload its master weights
    (``optimizer.reload_model_params()``). Padded rows of the embedding are drawn like others.

    Args:
        chunks: The chunks of :func:`megagrow.model.build.build_model`, bare or wrapped.
        shape: The whole model.
        init: Scheme and standard deviation.
        seed: The run's seed.
        only: Draw only tensors whose checkpoint key it accepts; None: all.
    """
    for chunk in chunks:
        for tensor in sharded_tensors(chunk):
            if only is None or only(tensor.key):
                _draw(tensor, shape, init, seed)


def sharded_tensors(chunk: torch.nn.Module) -> list[ShardedTensor]:
    """The tensors of a chunk, with key, global shape and place, over the parameters' own memory.

    SwiGLU's fused projection comes as its two halves. Tied weights come once per stage.
    """
    state = unwrap_model(chunk).sharded_state_dict(metadata=dict(KEYS_PER_LAYER))
    apply_factories(state)
    return [entry for entry in nested_values(state) if isinstance(entry, ShardedTensor)]


def standard_deviation(
    key: str, global_shape: Sequence[int], shape: ModelShape, init: InitConfig
) -> float | None:
    """Standard deviation of a tensor's first values; None: a norm or a bias, which are constant.

    Scheme ``megatron``: ``std``; attention and MLP output projections divided by
    ``sqrt(2 layers)`` (GPT-2; ``scaled_init_method_normal``). Scheme ``gstack`` (arXiv 2405.15319,
    the authors' training code): ``sqrt(2 / (5 d))`` with ``d`` the input width of a linear layer
    and the hidden size for an embedding; MLP output ``1 / (sqrt(d) layers)``. There the attention
    output is a linear layer like others; the paper's noise ablation gives it the MLP output's
    variance, which is not what its models were trained from.

    Args:
        key: Checkpoint key of the tensor.
        global_shape: Its shape, unsplit.
        shape: The whole model.
        init: Scheme and standard deviation.
    """
    if len(global_shape) < 2:
        return None
    return scheme_deviation(
        global_shape[-1],
        shape.num_layers,
        init,
        residual_output=key.endswith(_RESIDUAL_OUTPUTS),
        mlp_output=key.endswith("mlp.linear_fc2.weight"),
    )


def scheme_deviation(
    inputs: int, layers: int, init: InitConfig, *, residual_output: bool, mlp_output: bool
) -> float:
    """Standard deviation of a matrix's first values; see :func:`standard_deviation`.

    Args:
        inputs: Its input features, or the hidden size for an embedding.
        layers: Depth of the model.
        init: Scheme and standard deviation.
        residual_output: Whether a layer adds its product to the residual stream.
        mlp_output: Whether it is the second of the MLP.
    """
    if init.scheme == "megatron":
        return init.std / math.sqrt(2 * layers) if residual_output else init.std
    return 1 / (math.sqrt(inputs) * layers) if mlp_output else math.sqrt(2 / (5 * inputs))


def first_values(
    key: str,
    size: Sequence[int],
    shape: ModelShape,
    init: InitConfig,
    seed: int,
    device: torch.device | None = None,
) -> torch.Tensor:
    """A tensor as a new model begins with it, whole, in fp32.

    Args:
        key: Its checkpoint key.
        size: Its shape, unsplit.
        shape: The whole model.
        init: Scheme and standard deviation.
        seed: The run's seed.
        device: Where to draw; CPU and GPU generators differ.
    """
    full = torch.empty(tuple(size), dtype=torch.float32, device=device)
    std = standard_deviation(key, size, shape, init)
    if std is None:
        # Norm gains are "...norm.weight", "...layer_norm_weight"; all other vectors are biases.
        return full.fill_(1.0 if key.endswith("weight") else 0.0)
    generator = torch.Generator(full.device).manual_seed(seeds.seed_for(seed, key))
    return full.normal_(0.0, std, generator=generator)


@torch.no_grad()
def _draw(tensor: ShardedTensor, shape: ModelShape, init: InitConfig, seed: int) -> None:
    local = tensor.data
    full = first_values(tensor.key, tensor.global_shape, shape, init, seed, local.device)
    part = tuple(
        slice(offset, offset + size)
        for offset, size in zip(tensor.global_offset, local.shape, strict=True)
    )
    local.copy_(full[part])
