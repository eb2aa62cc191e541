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

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.config.schema import BatchConfig, ParallelConfig
from megagrow.model.flops import layer_parameters, parameters
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape

Amount = Any
"""An int, or an int64 array of many; numpy divides and rounds whole numbers as Python does."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """The layers that a rank holds, as far as memory goes.

    A field is a whole number, or an int64 array that stands for many candidates at once.
    """

    layers: Amount
    """How many."""

    parameters: Amount
    """Their weights, on one tensor-parallel rank."""

    kept: Amount
    """Sum of their `layer_activation_bytes`."""

    widest: Amount
    """The largest of their `layer_activation_bytes`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryModel:
    """The estimate for one model under one parallel layout, for any split of its layers."""

    shape: ModelShape
    """The model."""

    parallel: ParallelConfig
    """How it is spread."""

    batch: BatchConfig
    """Global and micro-batch size."""

    data_parallel: int
    """Ranks that share the optimizer state."""

    precision: str = "bf16"
    """`bf16` or `fp32`."""

    dropout: bool = False
    """Whether the model has dropout, whose masks are kept."""

    def ranks(self, layout: Sequence[int]) -> tuple[RankMemory, ...]:
        """The estimate for every pipeline rank.

        Args:
            layout: layers of each chunk; rank r holds chunks r, r + pipeline, ...
        """
        parts = list(zip(self.layer_parameters(), self.layer_activations(), strict=True))
        ends = list(accumulate(layout))
        chunks = [parts[end - count : end] for end, count in zip(ends, layout, strict=True)]
        result = []
        for rank in range(self.parallel.pipeline):
            own = [part for chunk in chunks[rank :: self.parallel.pipeline] for part in chunk]
            held = Held(
                layers=len(own),
                parameters=sum(weights for weights, _ in own),
                kept=sum(kept for _, kept in own),
                widest=max((kept for _, kept in own), default=0),
            )
            result.append(self.rank(rank, held))
        return tuple(result)

    def ranks_of(
        self, layout: Sequence[int], trained: Collection[int], *, head: bool
    ) -> tuple[RankMemory, ...]:
        """The estimate where only some layers are trained, activations as if all were.

        Frozen weights have no gradients and no optimizer state.

        Args:
            layout: as for `ranks`.
            trained: layers (from 0) that are trained.
            head: whether final norm and output layer are.
        """
        weights, pipeline = self.layer_parameters(), self.parallel.pipeline
        starts = [0, *accumulate(layout)]
        chunks = [range(start, end) for start, end in pairwise(starts)]
        found = []
        for rank in self.ranks(layout):
            own = (layer for chunk in chunks[rank.pipeline_rank :: pipeline] for layer in chunk)
            count = sum(weights[layer] for layer in own if layer in trained)
            if head and rank.pipeline_rank == pipeline - 1:
                table = self.shape.padded_vocab_size // self.parallel.tensor
                count += parameters(self.shape).final_norm + table * self.shape.hidden_size
            found.append(
                replace(
                    rank,
                    gradients=rank.gradients * count // rank.parameters,
                    optimizer=rank.optimizer * count // rank.parameters,
                )
            )
        return tuple(found)

    def layer_parameters(self) -> list[int]:
        """Weights of each layer, on one tensor-parallel rank."""
        tensor = self.parallel.tensor
        return [layer_parameters(layer, self.shape, tensor) for layer in self.shape.layers]

    def layer_activations(self) -> list[int]:
        """`layer_activation_bytes` of each layer."""
        return [
            layer_activation_bytes(
                layer,
                self.shape,
                tensor=self.parallel.tensor,
                sequence_parallel=self.parallel.sequence_parallel,
                element=self._element,
                dropout=self.dropout,
            )
            for layer in self.shape.layers
        ]

    def rank(self, rank: int, held: Held) -> RankMemory:
        """The estimate for pipeline rank `rank` with the layers `held`, which are whole numbers.

        It never falls when a layer is added.
        """
        return self._estimate(rank, self._place(rank), held)

    def totals(self, held: Held) -> NDArray[np.int64]:
        """`rank(...).total` of every pipeline rank in turn: [pipeline, candidates]."""
        ranks = range(self.parallel.pipeline)
        columns = np.array([self._place(rank) for rank in ranks], dtype=np.int64).T[:, :, None]
        return np.asarray(self._estimate(0, tuple(columns), held).total)

    def _place(self, rank: int) -> tuple[int, int, int, int]:
        """What differs between ranks.

        Weights of the model's ends, chunk passes in flight, bytes per token of the final norm and
        of the logits.
        """
        parallel = self.parallel
        micro_batches = self.batch.global_size // (self.batch.micro_size * self.data_parallel)
        last = rank == parallel.pipeline - 1
        head = _head_bytes(self.shape, parallel, self._element) if last else (0, 0)
        weights = _end_parameters(self.shape, rank, parallel)
        return weights, in_flight(rank, parallel, micro_batches), *head

    def _estimate(self, rank: int, place: tuple[Amount, ...], held: Held) -> RankMemory:
        ends, passes, norm, logits = place
        parallel, tokens = self.parallel, self.batch.micro_size * self.shape.seq_length
        state = 8 + (4 if self.precision == "bf16" else 0)
        in_fp32 = self.precision == "fp32" or parallel.grad_reduce_in_fp32
        shards = self.data_parallel if parallel.distributed_optimizer else 1
        count = held.parameters + ends
        copy = 0 if in_fp32 else -(-count * 4 // shards)
        return RankMemory(
            pipeline_rank=rank,
            parameters=count,
            weights=count * self._element,
            gradients=count * (4 if in_fp32 else self._element) + copy,
            optimizer=-(-count * state // shards),
            activations=tokens * (self._activations(passes, held) + norm),
            logits=tokens * logits,
        )

    @property
    def _element(self) -> int:
        return 2 if self.precision == "bf16" else 4

    def _activations(self, passes: Amount, held: Held) -> Amount:
        """Bytes per token of a micro-batch."""
        parallel = self.parallel
        if parallel.recompute == "full":  # each layer's input, and one layer while it is recomputed
            split = parallel.tensor if parallel.sequence_parallel else 1
            layer_input = -(-self.shape.hidden_size * self._element // split)
            inputs = passes * held.layers * layer_input // parallel.virtual_pipeline
            return inputs + held.widest
        return passes * held.kept // parallel.virtual_pipeline


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
    Norms of Q and K keep their input, where megatron-core had to copy Q for it, and fp32 statistics
    of every head; without rotary embeddings, Q and K after them, too.
    """
    whole = 4 * shape.hidden_size * element + (2 * shape.hidden_size if dropout else 0)
    query = layer.num_attention_heads * layer.kv_channels
    key = layer.num_query_groups * layer.kv_channels
    llama = shape.style == "llama"
    attention = 2 * query + 2 * key + (query + key if llama else 0)
    mlp = (3 if llama else 2) * layer.ffn_hidden_size
    heads = layer.num_attention_heads
    split = (attention + mlp) * element + 4 * heads
    if shape.qk_norm:
        # Several heads of several groups lie between keys and values: they are gathered first.
        gathered = query if 1 < layer.num_query_groups // tensor < heads // tensor else 0
        statistics = 4 * (heads + layer.num_query_groups) * (1 if llama else 2)
        split += (gathered + (0 if llama else query + key)) * element + statistics
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


def _end_parameters(shape: ModelShape, rank: int, parallel: ParallelConfig) -> int:
    """Weights of the embedding on the first rank, of final norm and output layer on the last."""
    first, last = rank == 0, rank == parallel.pipeline - 1
    table = shape.padded_vocab_size // parallel.tensor * shape.hidden_size
    count = 0
    if first:
        count += table + (shape.seq_length * shape.hidden_size if shape.style == "gpt2" else 0)
    if last:
        count += parameters(shape).final_norm
        # A tied table has a second copy where the pipeline's two ends are on different ranks.
        count += 0 if shape.tie_embeddings and first else table
    return count


def _head_bytes(shape: ModelShape, parallel: ParallelConfig, element: int) -> tuple[int, int]:
    """Bytes per token of the final norm with the output layer's input, and of the logits."""
    split = parallel.tensor if parallel.sequence_parallel else 1
    norm = -(-2 * shape.hidden_size * element // split)
    # Logits as they are computed, and in fp32 for the loss, unless that is the same tensor.
    per_logit = 4 if element == 4 else element + 4
    return norm, shape.padded_vocab_size // parallel.tensor * per_logit
