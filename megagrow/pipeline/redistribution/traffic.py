"""How much a change of depth and layout sends between processes: an estimate. Pure Python.

It draws up who holds what from the shapes, as megatron-core's distributed optimizer does but for
the padding of its buffers, and asks the same question of it as the growth itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from megagrow.config.schema import ParallelConfig
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.pipeline.balancing.balance import layer_ranges
from megagrow.pipeline.redistribution.fetches import Holdings, plan_fetches
from megagrow.pipeline.redistribution.ownership import Block, Owned, total


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A model under a layout."""

    shape: ModelShape
    """The model."""

    parallel: ParallelConfig
    """Its layout; rank r is tensor-parallel rank r mod tensor, as megatron-core numbers them."""

    layout: Sequence[int]
    """Layers of each pipeline chunk; pipeline rank p holds chunks p, p + pipeline, ..."""

    data_parallel: int
    """Data-parallel size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Elements of one kind of tensor (weights, say) that a change moves, from a sample of ranks."""

    received: int
    """From other processes, over all processes together."""

    most_received: int
    """From other processes, by the process that receives most."""

    most_held: int
    """In the new layout, by the process that holds most."""


_TABLE = "embedding.word_embeddings.weight"

_SAMPLE = 64
"""Processes that are asked what they receive; of more, that many speak for all."""


class _Matrix(NamedTuple):
    """A tensor of the model, and which of its sides tensor parallelism divides."""

    key: str
    rows: int
    columns: int
    split: str = ""


def traffic(old: Placement, new: Placement, source: Callable[[str], str | None]) -> Traffic:
    """What growing, or moving, from one placement to another sends.

    Args:
        old: before.
        new: after, on as many processes.
        source: the old tensor's key for a new tensor's.
    """
    ranks = new.parallel.tensor * new.parallel.pipeline * new.data_parallel
    held = Holdings([owned_by(old, rank) for rank in range(ranks)])
    received, sizes = [], []
    # A fixed sample: any stride could meet the same place in every group.
    asked = Random(0).sample(range(ranks), min(ranks, _SAMPLE))
    for rank in asked:
        want = owned_by(new, rank)
        received.append(plan_fetches(held, want, rank, source).received(rank))
        sizes.append(total(want))
    return Traffic(
        received=sum(received) * ranks // len(asked),
        most_received=max(received),
        most_held=max(sizes),
    )


def owned_by(placement: Placement, rank: int) -> list[Owned]:
    """What a rank holds of master weights, or of either moment."""
    parallel, data_parallel = placement.parallel, placement.data_parallel
    tensor = rank % parallel.tensor
    data = rank // parallel.tensor % data_parallel
    pipeline = rank // (parallel.tensor * data_parallel)
    owned: list[Owned] = []
    for chunk in range(pipeline, len(placement.layout), parallel.pipeline):
        # The gradient buffer, which the shards are cut from, begins with the chunk's last tensor.
        blocks = [_part(matrix, tensor, parallel.tensor) for matrix in _chunk(placement, chunk)][
            ::-1
        ]
        if parallel.distributed_optimizer:
            # Tied tables at the two ends of a pipeline are reduced, and so sharded, by themselves.
            apart = placement.shape.tie_embeddings and parallel.pipeline > 1
            tables = [block for block in blocks if apart and block.key == _TABLE]
            owned += _shard(tables, data, data_parallel)
            owned += _shard([b for b in blocks if b not in tables], data, data_parallel)
        else:
            owned += [Owned(block, 0, block.size) for block in blocks]
    return owned


def _shard(blocks: Sequence[Block], index: int, count: int) -> Iterator[Owned]:
    size = -(-sum(block.size for block in blocks) // count)
    before = 0
    for block in blocks:
        low = max(0, index * size - before)
        high = min(block.size, (index + 1) * size - before)
        if low < high:
            yield Owned(block, low, high)
        before += block.size


def _part(matrix: _Matrix, rank: int, size: int) -> Block:
    key, rows, columns, split = matrix
    if split == "rows":
        rows //= size
        return Block(key, row=rank * rows, column=0, rows=rows, columns=columns)
    if split == "columns":
        columns //= size
        return Block(key, row=0, column=rank * columns, rows=rows, columns=columns)
    return Block(key, row=0, column=0, rows=rows, columns=columns)


def _chunk(placement: Placement, chunk: int) -> Iterator[_Matrix]:
    """The tensors of a pipeline chunk, from input to output, named as checkpoints name them."""
    shape, last = placement.shape, len(placement.layout) - 1
    table = _Matrix(_TABLE, shape.padded_vocab_size, shape.hidden_size, "rows")
    if chunk == 0:
        yield table
        if shape.style == "gpt2":
            key = "embedding.position_embeddings.weight"
            yield _Matrix(key, shape.seq_length, shape.hidden_size)
    for number in layer_ranges(placement.layout)[chunk]:
        yield from _layer(f"decoder.layers.{number}.", shape.layers[number], shape)
    if chunk == last:
        yield from _norm("decoder.final_layernorm.", shape)
        if not shape.tie_embeddings:
            yield table._replace(key="output_layer.weight")
        elif last:  # the pipeline's other end has a copy
            yield table


def _layer(prefix: str, layer: LayerShape, shape: ModelShape) -> Iterator[_Matrix]:
    hidden = shape.hidden_size
    query = layer.num_attention_heads * layer.kv_channels
    qkv = query + 2 * layer.num_query_groups * layer.kv_channels
    yield from _norm(f"{prefix}input_layernorm.", shape)
    yield from _linear(f"{prefix}self_attention.linear_proj.", hidden, query, "columns", shape)
    yield from _linear(f"{prefix}self_attention.linear_qkv.", qkv, hidden, "rows", shape)
    yield from _norm(f"{prefix}pre_mlp_layernorm.", shape)
    if shape.style == "llama":  # gate and up, which a rank holds half of each
        for half in ("w", "v"):
            key = f"{prefix}mlp.linear_fc1.weight_{half}"
            yield _Matrix(key, layer.ffn_hidden_size, hidden, "rows")
    else:
        yield from _linear(f"{prefix}mlp.linear_fc1.", layer.ffn_hidden_size, hidden, "rows", shape)
    yield from _linear(f"{prefix}mlp.linear_fc2.", hidden, layer.ffn_hidden_size, "columns", shape)


def _linear(
    prefix: str, rows: int, columns: int, split: str, shape: ModelShape
) -> Iterator[_Matrix]:
    yield _Matrix(f"{prefix}weight", rows, columns, split)
    if shape.style == "gpt2":
        yield _Matrix(f"{prefix}bias", rows, 1, "rows" if split == "rows" else "")


def _norm(prefix: str, shape: ModelShape) -> Iterator[_Matrix]:
    yield _Matrix(f"{prefix}weight", shape.hidden_size, 1)
    if shape.style == "gpt2":
        yield _Matrix(f"{prefix}bias", shape.hidden_size, 1)
