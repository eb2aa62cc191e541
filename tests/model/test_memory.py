from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import BatchConfig, ModelConfig, ParallelConfig
from megagrow.model.flops import parameters
from megagrow.model.memory import (
    Held,
    MemoryModel,
    RankMemory,
    in_flight,
    layer_activation_bytes,
)
from megagrow.model.shape import ModelShape, model_shape
from tests.distributed import World


def shape_of(layers: int = 4, **keys: Any) -> ModelShape:
    base: dict[str, Any] = {
        "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 1000, "vocab_padding": 8,
        "seq_length": 32,
    }  # fmt: skip
    return model_shape(ModelConfig(**(base | keys)), layers)


def estimate(
    shape: ModelShape,
    layout: tuple[int, ...] = (4,),
    data_parallel: int = 1,
    global_size: int = 16,
    precision: str = "bf16",
    **parallel: Any,
) -> tuple[RankMemory, ...]:
    return MemoryModel(
        shape=shape,
        parallel=ParallelConfig(**parallel),
        batch=BatchConfig(global_size=global_size, micro_size=2),
        data_parallel=data_parallel,
        precision=precision,
    ).ranks(layout)


@pytest.mark.parametrize(("tensor", "sequence_parallel"), [(1, False), (4, False), (4, True)])
def test_activations_of_a_gpt2_layer_are_those_of_korthikanti(
    tensor: int, sequence_parallel: bool
) -> None:
    """Their table 2 without the scores: 34, 10 + 24/t, 34/t (times s b h); and the log-sum-exp."""
    shape = shape_of(style="gpt2")
    got = layer_activation_bytes(
        shape.layers[0], shape, tensor=tensor, sequence_parallel=sequence_parallel, dropout=True
    )
    per_hidden = 34 / tensor if sequence_parallel else 10 + 24 / tensor
    assert got == per_hidden * 64 + 4 * 4 / tensor


@pytest.mark.parametrize("style", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("parallel", "layout"), [({}, (4,)), ({"pipeline": 2}, (3, 1)), ({"tensor": 2}, (4,))]
)
def test_ranks_hold_every_weight_once(
    style: str, tied: bool, parallel: dict[str, int], layout: tuple[int, ...]
) -> None:
    shape = shape_of(style=style, tie_embeddings=tied)
    tensor = parallel.get("tensor", 1)
    held = tensor * sum(rank.parameters for rank in estimate(shape, layout, **parallel))
    copies = shape.padded_vocab_size * 64 if tied and len(layout) > 1 else 0
    norms = shape.num_layers * 2 + 1
    whole = 64 * (norms * (2 if style == "gpt2" else 1))
    if style == "gpt2":
        whole += 64 * (2 * shape.num_layers + 32)  # biases of the two outputs, positions
    assert held == parameters(shape).total + copies + (tensor - 1) * whole


def test_bytes_per_parameter() -> None:
    shape = shape_of()
    (rank,) = estimate(shape)
    count = parameters(shape).total
    assert rank.parameters == count
    assert (rank.weights, rank.gradients, rank.optimizer) == (2 * count, 4 * count, 12 * count)
    (rank,) = estimate(shape, precision="fp32")
    assert (rank.weights, rank.gradients, rank.optimizer) == (4 * count, 4 * count, 8 * count)
    assert rank.total == 16 * count + rank.activations + rank.logits


def test_frozen_weights_have_no_gradients_and_no_optimizer_state() -> None:
    shape = shape_of()
    memory = MemoryModel(
        shape=shape,
        parallel=ParallelConfig(pipeline=2),
        batch=BatchConfig(global_size=16, micro_size=2),
        data_parallel=1,
    )
    layer = parameters(shape).layers[0]
    first, last = memory.ranks_of((2, 2), {2}, head=False)
    assert (first.gradients, first.optimizer) == (0, 0)
    assert (last.gradients, last.optimizer) == (4 * layer, 12 * layer)
    everything = memory.ranks((2, 2))
    assert (first.weights, last.weights) == tuple(rank.weights for rank in everything)
    assert memory.ranks_of((2, 2), {2, 3}, head=True)[1] == everything[1]


def test_bf16_gradients_are_copied_to_fp32_for_the_update() -> None:
    count = parameters(shape_of()).total
    (rank,) = estimate(shape_of(), grad_reduce_in_fp32=False)
    assert rank.gradients == (2 + 4) * count
    (rank,) = estimate(shape_of(), grad_reduce_in_fp32=False, data_parallel=4)
    assert rank.gradients == (2 + 4 // 4) * count
    (rank,) = estimate(shape_of(), grad_reduce_in_fp32=False, precision="fp32")
    assert rank.gradients == 4 * count


def test_distributed_optimizer_divides_only_its_state() -> None:
    (one,), (four,) = estimate(shape_of()), estimate(shape_of(), data_parallel=4)
    assert one.optimizer == 4 * four.optimizer
    assert replace(one, optimizer=0) == replace(four, optimizer=0)
    (whole,) = estimate(shape_of(), data_parallel=4, distributed_optimizer=False)
    assert whole.optimizer == one.optimizer


def test_one_forward_one_backward_holds_most_on_the_first_rank() -> None:
    shape = shape_of(8)
    ranks = estimate(shape, (2, 2, 2, 2), pipeline=4)
    layer = layer_activation_bytes(shape.layers[0], shape)
    tokens = 2 * 32
    assert [rank.activations for rank in ranks[:3]] == [tokens * n * 2 * layer for n in (4, 3, 2)]
    assert ranks[3].activations == tokens * (2 * layer + 2 * 64 * 2)
    assert [rank.logits for rank in ranks] == [0, 0, 0, tokens * 1000 * (2 + 4)]


def test_few_micro_batches_hold_no_more_than_there_are() -> None:
    parallel = ParallelConfig(pipeline=4)
    assert [in_flight(rank, parallel, 2) for rank in range(4)] == [2, 2, 2, 1]


def test_interleaved_schedule_holds_more() -> None:
    """(pipeline - rank - 1) x 2 + (virtual - 1) x pipeline + 1 chunk passes."""
    parallel = ParallelConfig(pipeline=4, virtual_pipeline=2)
    assert [in_flight(rank, parallel, 100) for rank in range(4)] == [11, 9, 7, 5]
    assert in_flight(0, parallel, 4) == 8
    shape = shape_of(8)
    plain = estimate(shape, (2,) * 4, global_size=64, pipeline=4)
    interleaved = estimate(shape, (1,) * 8, global_size=64, pipeline=4, virtual_pipeline=2)
    assert interleaved[0].activations == plain[0].activations * 11 // 8
    assert [a.parameters for a in plain] == [b.parameters for b in interleaved]


def test_full_recomputation_keeps_layer_inputs() -> None:
    shape = shape_of()
    (full,), (selective,), (none,) = (
        estimate(shape, recompute=kind) for kind in ("full", "selective", "none")
    )
    layer = layer_activation_bytes(shape.layers[0], shape)
    assert none.activations - full.activations == 2 * 32 * (3 * layer - 4 * 64 * 2)
    assert selective == none


def test_tensor_and_sequence_parallel_shrink_activations() -> None:
    shape = shape_of()
    (one,) = estimate(shape)
    (tensor,) = estimate(shape, tensor=2)
    (sequence,) = estimate(shape, tensor=2, sequence_parallel=True)
    assert one.activations > tensor.activations > sequence.activations
    assert sequence.activations == one.activations // 2
    assert tensor.logits == sequence.logits == one.logits // 2


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_many_candidates_at_once_are_estimated_as_one_by_one(recompute: Any) -> None:
    memory = MemoryModel(
        shape=shape_of(8),
        parallel=ParallelConfig(
            pipeline=4, virtual_pipeline=2, recompute=recompute, grad_reduce_in_fp32=False
        ),
        batch=BatchConfig(global_size=24, micro_size=2),
        data_parallel=3,
    )
    counts = np.arange(1, 9)
    totals = memory.totals(Held(layers=counts, parameters=977 * counts, kept=31 * counts, widest=5))
    for rank in range(4):
        for column, count in enumerate(map(int, counts)):
            held = Held(layers=count, parameters=977 * count, kept=31 * count, widest=5)
            assert totals[rank, column] == memory.rank(rank, held).total


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.integers(1, 8))
def test_in_flight_never_exceeds_the_work(
    pipeline: int, virtual: int, groups: int, rank: int
) -> None:
    parallel = ParallelConfig(pipeline=pipeline, virtual_pipeline=virtual if pipeline > 1 else 1)
    micro_batches = groups * pipeline
    held = in_flight(min(rank, pipeline) - 1, parallel, micro_batches)
    assert 1 <= held <= micro_batches * parallel.virtual_pipeline


def _saved_bytes(model: ModelConfig, parallel: ParallelConfig, layers: int) -> tuple[int, int]:
    """Weights on this rank, and bytes autograd keeps after a forward pass of two sequences."""
    import torch

    from megagrow.model.build import build_model
    from megagrow.model.initialisation import initialise
    from megagrow.runtime import groups, seeds

    shape = model_shape(model, layers)
    groups.set_up(tensor=parallel.tensor)
    seeds.seed_step(1, 0)
    chunks = build_model(shape, model, parallel, "fp32", (layers,))
    initialise(chunks, shape, model.init, 1)
    weights = {p.untyped_storage().data_ptr(): p.numel() for p in chunks[0].parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.randint(0, model.vocab_size, (2, model.seq_length))
    positions = torch.arange(model.seq_length).expand(2, -1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = chunks[0](tokens, positions, None, labels=tokens)
    total = sum(storage.nbytes() for storage in kept.values())
    assert loss.requires_grad
    groups.tear_down()
    return sum(weights.values()), total


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("parallel", "keys"),
    [
        (ParallelConfig(), {}),
        (ParallelConfig(tensor=2), {}),
        (ParallelConfig(tensor=2, sequence_parallel=True), {}),
        (ParallelConfig(), {"qk_norm": True, "qkv_bias": True, "rotary_scaling": 4.0}),
        (ParallelConfig(tensor=2), {"qk_norm": True}),
    ],
    ids=["whole", "tensor", "sequence", "norms and biases", "norms split"],
)
def test_estimate_is_what_the_model_keeps(
    world2: World, style: Any, parallel: ParallelConfig, keys: dict[str, Any]
) -> None:
    model = ModelConfig(
        **keys,
        style=style, hidden_size=128, num_attention_heads=4,
        num_query_groups=2 if style == "llama" else None,
        ffn_hidden_size=320, vocab_size=256, seq_length=64,
    )  # fmt: skip
    (weights, two), (_, four) = (world2.run(_saved_bytes, model, parallel, n)[0] for n in (2, 4))
    shape = model_shape(model, 2)
    (estimated,) = MemoryModel(
        shape=shape, parallel=parallel, batch=BatchConfig(global_size=4, micro_size=2),
        data_parallel=2 // parallel.tensor, precision="fp32",
    ).ranks((2,))  # fmt: skip
    assert weights == estimated.parameters
    layer = layer_activation_bytes(
        shape.layers[0], shape, element=4, tensor=parallel.tensor,
        sequence_parallel=parallel.sequence_parallel,
    )  # fmt: skip
    # Sine and cosine for Q and for K, of one sequence: negligible in any model but a tiny one.
    rotary = 4 * 32 * 4 * 64 if style == "llama" else 0
    assert (four - two) / 2 == pytest.approx(2 * 64 * layer + rotary, rel=0.01)
    kept = estimated.activations + estimated.logits + 2 * rotary
    assert two == pytest.approx(kept, rel=0.02)
