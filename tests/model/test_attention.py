from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

from megagrow.errors import LayoutError
from megagrow.model.attention import ScaledDotProductAttention
from megagrow.runtime import groups, seeds
from tests.distributed import World

LENGTH, BATCH, HEADS, CHANNELS = 12, 3, 4, 8


def config(key_heads: int = HEADS, **changes: Any) -> TransformerConfig:
    return TransformerConfig(
        num_layers=1,
        hidden_size=HEADS * CHANNELS,
        num_attention_heads=HEADS,
        num_query_groups=key_heads,
        **{
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "masked_softmax_fusion": False,
            **changes,
        },
    )


def attention(kind: Any, config: TransformerConfig, **changes: Any) -> Any:
    return kind(config, 1, AttnMaskType.causal, "self", **changes)


def qkv(key_heads: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (HEADS, key_heads, key_heads)
    return [
        torch.randn(LENGTH, BATCH, n, CHANNELS, generator=generator).to(dtype).requires_grad_()
        for n in heads
    ]


def naive(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    repeats = query.size(2) // key.size(2)
    key, value = (x.repeat_interleave(repeats, 2).float() for x in (key, value))
    scores = torch.einsum("sbnh,tbnh->bnst", query.float(), key) * scale
    positions = torch.arange(key.size(0))
    hidden = positions > positions[-query.size(0) :, None]
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("bnst,tbnh->sbnh", weights, value).flatten(2).to(query.dtype)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_values_and_gradients_are_megatron_cores(
    alone: None, key_heads: int, scale: float | None
) -> None:
    groups.set_up()
    seeds.seed_step(1, 0)
    hidden = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool).triu(1)
    grad = torch.randn(LENGTH, BATCH, HEADS * CHANNELS)
    results = []
    for kind in (ScaledDotProductAttention, DotProductAttention):
        tensors = qkv(key_heads)
        core = attention(kind, config(key_heads), softmax_scale=scale)
        context = core(*tensors, hidden)
        context.backward(grad)
        results.append([context, *(tensor.grad for tensor in tensors)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_are_those_of_the_formula(
    key_heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    tensors = qkv(key_heads, dtype)
    context = attention(ScaledDotProductAttention, config(key_heads))(*tensors)
    assert context.dtype == dtype
    assert context.is_contiguous()
    expected = naive(*tensors, CHANNELS**-0.5)
    torch.testing.assert_close(context, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("queries", [1, 5])
def test_queries_behind_a_cache_are_the_last_positions(queries: int) -> None:
    query, key, value = qkv(2)
    core = attention(ScaledDotProductAttention, config(2))
    torch.testing.assert_close(
        core(query[-queries:], key, value), core(query, key, value)[-queries:], rtol=1e-5, atol=1e-5
    )


def test_no_mask_sees_everything() -> None:
    query, key, value = qkv(4)
    core = attention(ScaledDotProductAttention, config())
    everything = core(query, key, value, attn_mask_type=AttnMaskType.no_mask)
    torch.testing.assert_close(everything[-1], core(query, key, value)[-1])
    assert not torch.allclose(everything[0], core(query, key, value)[0])


def test_what_it_cannot_do_is_refused() -> None:
    core = attention(ScaledDotProductAttention, config())
    tensors = qkv(4)
    for arguments in (
        {"attn_mask_type": AttnMaskType.padding},
        {"attention_bias": torch.zeros(1)},
        {"packed_seq_params": object()},
    ):
        with pytest.raises(NotImplementedError, match="Transformer Engine"):
            core(*tensors, None, **arguments)
    with pytest.raises(LayoutError, match="context_parallel_size=2"):
        attention(ScaledDotProductAttention, config(context_parallel_size=2))


def _dropped(_: int) -> tuple[list[float], list[float], list[float]]:
    groups.set_up(tensor=2)
    seeds.seed_step(3, 0)
    core = attention(
        ScaledDotProductAttention, config(attention_dropout=0.5, tensor_model_parallel_size=2)
    )
    ones = torch.ones(LENGTH, BATCH, HEADS // 2, CHANNELS)
    first, second = core(ones, ones, ones), core(ones, ones, ones)
    core.eval()
    rest = core(ones, ones, ones)
    default = torch.rand(3)  # drawn outside the tracker: ranks agree
    return (
        first.flatten().tolist(),
        second.flatten().tolist(),
        [*default.tolist(), float(rest.min())],
    )


def test_dropout_differs_between_tensor_parallel_ranks(world2: World) -> None:
    (first, second, rest), (other, _, other_rest) = world2.run(_dropped, 0)
    assert first != second
    assert first != other
    assert rest == other_rest
    assert rest[-1] == pytest.approx(1.0)
    kept = torch.tensor(first)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.15)
