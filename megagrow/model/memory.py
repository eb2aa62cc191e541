"""An estimate of the memory that training takes on each pipeline rank. Pure Python.

It adds up what the layout decides: weights, gradients, optimizer state, the activations kept for
the backward pass and the logits. Activations follow Korthikanti et al. (arXiv 2205.05198, section
4), generalised to any head count, FFN width and style: their 34 s b h per layer is what the formula
gives for a GPT-2 layer with dropout in 16 bits. The scores (their 5 a s/h term) are left out,
because flash attention never stores them; that also makes `selective` recomputation, which repeats
just the core attention, cost the same here as none. The tests hold a layer's bytes against those
that autograd keeps; a norm without a fused kernel (bf16 on a CPU) keeps more.

Not in it: the CUDA context, communication and workspace buffers, fragmentation, and what kernels
allocate for a moment. Leave a tenth of the device free on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megagrow.config.schema import BatchConfig, ParallelConfig
from megagrow.model.flops import layer_parameters, parameters
from megagrow.model.shape import LayerShape, ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class RankMemory:
    """Bytes on one rank of a pipeline stage."""

    pipeline_rank: int
    """The rank's place in the pipeline."""

    parameters: int
    """Weights it holds, as a number of elements."""

    weights: int
    """Bytes of the weights."""

    gradients: int
    """Bytes of the main gradients that micro-batches are accumulated in, and of the fp32 copy that
    the optimizer makes of those it updates with, where they are bf16."""

    optimizer: int
    """Bytes of fp32 master weights (bf16 training) and both moments, or of this rank's shard."""

    activations: int
    """Bytes kept for the backward pass of every micro-batch in flight."""

    logits: int
    """Bytes of the logits and their fp32 softmax (last pipeline rank)."""

    @property
    def total(self) -> int:
        """All of it."""
        state = self.weights + self.gradients + self.optimizer
        return state + self.activations + self.logits


def rank_memory(
    shape: ModelShape,
    *,
    parallel: ParallelConfig,
    batch: BatchConfig,
    layout: Sequence[int],
    data_parallel: int,
    precision: str = "bf16",
    dropout: bool = False,
) -> tuple[RankMemory, ...]:
    """The estimate for every pipeline rank.

    Args:
        shape: the model.
        parallel: its layout, with `layout` the layers of each of its pipeline x virtual chunks.
        batch: global and micro-batch size.
        layout: layers per chunk; rank r holds chunks r, r + pipeline, ...
        data_parallel: ranks that share the optimizer state.
        precision: `bf16` or `fp32`.
        dropout: whether the model has dropout, whose masks are kept.
    """
    element = 2 if precision == "bf16" else 4
    state = 8 + (4 if precision == "bf16" else 0)
    in_fp32 = precision == "fp32" or parallel.grad_reduce_in_fp32
    shards = data_parallel if parallel.distributed_optimizer else 1
    micro_batches = batch.global_size // (batch.micro_size * data_parallel)
    result = []
    for rank in range(parallel.pipeline):
        layers = _layers_of(shape, layout, rank, parallel.pipeline)
        count = _rank_parameters(shape, layers, rank, parallel)
        held = _activations(layers, shape, rank, parallel, micro_batches, element, dropout)
        last = rank == parallel.pipeline - 1
        head = _head_bytes(shape, parallel, element) if last else (0, 0)
        result.append(
            RankMemory(
                pipeline_rank=rank,
                parameters=count,
                weights=count * element,
                gradients=count * 4 if in_fp32 else count * element + -(-count * 4 // shards),
                optimizer=-(-count * state // shards),
                activations=batch.micro_size * shape.seq_length * (held + head[0]),
                logits=batch.micro_size * shape.seq_length * head[1],
            )
        )
    return tuple(result)


def layer_activation_bytes(
    layer: LayerShape,
    shape: ModelShape,
    *,
    tensor: int = 1,
    sequence_parallel: bool = False,
    element: int = 2,
    dropout: bool = False,
) -> int:
    """Bytes one layer keeps for the backward pass, per token of a micro-batch.

    Kept whole on every tensor-parallel rank, unless the sequence is split: input of both norms,
    input of QKV and of the MLP, two dropout masks of a byte. Split over the ranks: Q, K and V, the
    attention's output and its fp32 log-sum-exp, the MLP's first product and its activation; with
    rotary embeddings also the rotated Q and K, because V is a view that keeps all of QKV alive.
    """
    whole = 4 * shape.hidden_size * element + (2 * shape.hidden_size if dropout else 0)
    query = layer.num_attention_heads * layer.kv_channels
    key = layer.num_query_groups * layer.kv_channels
    llama = shape.style == "llama"
    attention = 2 * query + 2 * key + (query + key if llama else 0)
    mlp = (3 if llama else 2) * layer.ffn_hidden_size
    split = (attention + mlp) * element + 4 * layer.num_attention_heads
    return -(-whole // (tensor if sequence_parallel else 1)) + -(-split // tensor)


def in_flight(rank: int, parallel: ParallelConfig, micro_batches: int) -> int:
    """Chunk passes whose activations `rank` keeps at its peak, counted in chunks of layers.

    1F1B keeps one per pipeline rank from this one to the last; the interleaved schedule
    (megatron-core `get_pp_rank_microbatches`) two, and its other chunks' on top.
    """
    pipeline, virtual = parallel.pipeline, parallel.virtual_pipeline
    if virtual == 1:
        return min(pipeline - rank, micro_batches)
    warm_up = 2 * (pipeline - rank - 1) + (virtual - 1) * pipeline
    return min(warm_up + 1, micro_batches * virtual)


def _layers_of(
    shape: ModelShape, layout: Sequence[int], rank: int, pipeline: int
) -> list[LayerShape]:
    layers: list[LayerShape] = []
    for chunk in range(rank, len(layout), pipeline):
        start = sum(layout[:chunk])
        layers += shape.layers[start : start + layout[chunk]]
    return layers


def _rank_parameters(
    shape: ModelShape, layers: Sequence[LayerShape], rank: int, parallel: ParallelConfig
) -> int:
    tensor = parallel.tensor
    first, last = rank == 0, rank == parallel.pipeline - 1
    table = shape.padded_vocab_size // tensor * shape.hidden_size
    count = sum(layer_parameters(layer, shape, tensor) for layer in layers)
    if first:
        count += table + (shape.seq_length * shape.hidden_size if shape.style == "gpt2" else 0)
    if last:
        count += parameters(shape).final_norm
        # A tied table has a second copy where the pipeline's two ends are on different ranks.
        count += 0 if shape.tie_embeddings and first else table
    return count


def _activations(
    layers: Sequence[LayerShape],
    shape: ModelShape,
    rank: int,
    parallel: ParallelConfig,
    micro_batches: int,
    element: int,
    dropout: bool,
) -> int:
    """Bytes per token of a micro-batch."""
    passes = in_flight(rank, parallel, micro_batches)
    kept = [
        layer_activation_bytes(
            layer,
            shape,
            tensor=parallel.tensor,
            sequence_parallel=parallel.sequence_parallel,
            element=element,
            dropout=dropout,
        )
        for layer in layers
    ]
    if parallel.recompute == "full":  # each layer's input, and one layer while it is recomputed
        split = parallel.tensor if parallel.sequence_parallel else 1
        layer_input = -(-shape.hidden_size * element // split)
        return passes * len(layers) * layer_input // parallel.virtual_pipeline + max(kept)
    return passes * sum(kept) // parallel.virtual_pipeline


def _head_bytes(shape: ModelShape, parallel: ParallelConfig, element: int) -> tuple[int, int]:
    """Bytes per token of the final norm with the output layer's input, and of the logits."""
    split = parallel.tensor if parallel.sequence_parallel else 1
    norm = -(-2 * shape.hidden_size * element // split)
    # Logits as they are computed, and in fp32 for the loss, unless that is the same tensor.
    per_logit = 4 if element == 4 else element + 4
    return norm, shape.padded_vocab_size // parallel.tensor * per_logit
