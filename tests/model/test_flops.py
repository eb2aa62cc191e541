from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from megagrow.config import ModelConfig
from megagrow.model.flops import (
    TrainFlops,
    flops_per_token,
    layer_flops_per_token,
    layer_parameters,
    output_flops_per_token,
    parameters,
)
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape, model_shape

TINY_LAYER = LayerShape(
    num_attention_heads=4, num_query_groups=2, kv_channels=2, ffn_hidden_size=16
)
TINY = ModelShape(
    style="llama", hidden_size=8, vocab_size=30, padded_vocab_size=32, seq_length=6,
    tie_embeddings=False, layers=(TINY_LAYER,) * 3,
)  # fmt: skip


class PlainLayer(nn.Module):
    """One layer's weights as any PyTorch GPT has them, and its matrix products."""

    def __init__(self, layer: LayerShape, shape: ModelShape) -> None:
        super().__init__()
        gpt2 = shape.style == "gpt2"
        hidden, self.layer = shape.hidden_size, layer
        norm = nn.LayerNorm if gpt2 else nn.RMSNorm
        query = layer.num_attention_heads * layer.kv_channels
        key = layer.num_query_groups * layer.kv_channels
        self.norms = nn.ModuleList(norm(hidden) for _ in range(2))
        self.query = nn.Linear(hidden, query, bias=gpt2 or shape.qkv_bias)
        self.key = nn.Linear(hidden, key, bias=gpt2 or shape.qkv_bias)
        self.value = nn.Linear(hidden, key, bias=gpt2 or shape.qkv_bias)
        self.head_norms = nn.ModuleList(
            norm(layer.kv_channels) if shape.qk_norm else nn.Identity() for _ in range(2)
        )
        self.out = nn.Linear(query, hidden, bias=gpt2)
        self.gate = None if gpt2 else nn.Linear(hidden, layer.ffn_hidden_size, bias=False)
        self.up = nn.Linear(hidden, layer.ffn_hidden_size, bias=gpt2)
        self.down = nn.Linear(layer.ffn_hidden_size, hidden, bias=gpt2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens, heads = x.shape[0], self.layer.num_attention_heads
        normed = self.norms[0](x)
        query = self.query(normed).view(tokens, heads, -1).transpose(0, 1)
        repeat = heads // self.layer.num_query_groups
        split = (tokens, -1, self.layer.kv_channels)
        key, value = (
            linear(normed).view(split).transpose(0, 1).repeat_interleave(repeat, 0)
            for linear in (self.key, self.value)
        )
        query, key = self.head_norms[0](query), self.head_norms[1](key)
        mixed = (query @ key.transpose(1, 2)).softmax(-1) @ value
        x = x + self.out(mixed.transpose(0, 1).reshape(tokens, -1))
        normed = self.norms[1](x)
        up = self.up(normed)
        return x + self.down(up if self.gate is None else up * self.gate(normed).sigmoid())


class PlainGPT(nn.Module):
    """A GPT in plain PyTorch."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        gpt2 = shape.style == "gpt2"
        self.embedding = nn.Embedding(shape.padded_vocab_size, shape.hidden_size)
        self.positions = nn.Embedding(shape.seq_length, shape.hidden_size) if gpt2 else None
        self.layers = nn.ModuleList(PlainLayer(layer, shape) for layer in shape.layers)
        self.norm = nn.LayerNorm(shape.hidden_size) if gpt2 else nn.RMSNorm(shape.hidden_size)
        self.head = nn.Linear(shape.hidden_size, shape.padded_vocab_size, bias=False)
        if shape.tie_embeddings:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)).logsumexp(-1).sum()


SHAPES = [
    model_shape(
        ModelConfig(
            style=style, hidden_size=16, num_attention_heads=4, num_query_groups=groups,
            kv_channels=channels, ffn_hidden_size=40, vocab_size=50, vocab_padding=8, seq_length=12,
            tie_embeddings=tied, qkv_bias=qkv_bias, qk_norm=qk_norm,
        ),
        3,
    )
    for style, groups, channels, tied, qkv_bias, qk_norm in [
        *product(("gpt2", "llama"), (None, 2), (None, 6), (True, False), (False,), (False,)),
        *product(("gpt2", "llama"), (2,), (6,), (False,), (True, False), (True,)),
        ("llama", None, None, True, True, False),
    ]
]  # fmt: skip


def measured(shape: ModelShape, trained: set[int] | None) -> TrainFlops:
    """Matrix-product FLOPs per sequence as torch counts them, with some layers trained."""
    model = PlainGPT(shape)
    if trained is not None:
        model.requires_grad_(False)
        for layer in trained:
            model.layers[layer].requires_grad_(True)
    with FlopCounterMode(display=False) as forward:
        loss = model(torch.arange(shape.seq_length))
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return TrainFlops(forward=forward.get_total_flops(), backward=backward.get_total_flops())


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_those_of_a_real_model(shape: ModelShape) -> None:
    model = PlainGPT(shape)
    counted = parameters(shape)
    layer_counts = [sum(p.numel() for p in layer.parameters()) for layer in model.layers]
    assert list(counted.layers) == layer_counts
    assert counted.total == sum(p.numel() for p in model.parameters())
    assert counted.non_embedding == sum(layer_counts) + sum(
        p.numel() for p in model.norm.parameters()
    )


def per_sequence(shape: ModelShape, trained: set[int] | None) -> TrainFlops:
    """What is counted for one sequence."""
    token = flops_per_token(shape, trainable_layers=trained)
    length = shape.seq_length
    return TrainFlops(forward=token.forward * length, backward=token.backward * length)


@pytest.mark.parametrize("shape", SHAPES)
def test_flops_are_those_torch_counts(shape: ModelShape) -> None:
    assert per_sequence(shape, None) == measured(shape, None)


@pytest.mark.parametrize("trained", [{0}, {1}, {2}, {0, 2}, {1, 2}, {0, 1, 2}], ids=str)
@pytest.mark.parametrize("shape", SHAPES[::5])
def test_frozen_layers_cost_what_torch_counts(shape: ModelShape, trained: set[int]) -> None:
    assert per_sequence(shape, trained) == measured(shape, trained)


def test_tiny_model_by_hand() -> None:
    # Query, key, value: 8 x (8 + 4 + 4); output 8 x 8; gate, up, down 3 x 8 x 16; two norms of 8.
    layer = 8 * 16 + 8 * 8 + 3 * 8 * 16 + 16
    counted = parameters(TINY)
    assert counted.layers == (layer,) * 3
    assert counted.non_embedding == 3 * layer + 8
    assert counted.embedding == 2 * 32 * 8
    assert counted.total == counted.non_embedding + counted.embedding
    # Each weight is used once per token; a head of 2 meets 6 keys and 6 values, in 4 heads.
    forward = 2 * (8 * 16 + 8 * 8 + 3 * 8 * 16) + 2 * 2 * 4 * 2 * 6
    assert layer_flops_per_token(TINY.layers[0], TINY) == TrainFlops(
        forward=forward, backward=2 * forward
    )
    assert output_flops_per_token(TINY).forward == 2 * 8 * 32
    assert flops_per_token(TINY).total == 3 * (3 * forward + 2 * 8 * 32)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "ffn", "non_embedding", "total"),
    [
        (24, 1024, 16, 2816, 308, 374),
        (24, 2048, 32, 5632, 1233, 1364),
        (6, 2048, 32, 5632, 308, 439),
    ],
)
def test_sizes_of_the_gstack_paper(
    layers: int, hidden: int, heads: int, ffn: int, non_embedding: int, total: int
) -> None:
    model = ModelConfig(
        hidden_size=hidden, num_attention_heads=heads, ffn_hidden_size=ffn, vocab_size=32000,
        vocab_padding=64, seq_length=2048,
    )  # fmt: skip
    counted = parameters(model_shape(model, layers))
    assert round(counted.non_embedding / 1e6) == non_embedding
    assert round(counted.total / 1e6) == total


def test_gpt2_small_has_124_million() -> None:
    model = ModelConfig(
        style="gpt2", hidden_size=768, num_attention_heads=12, vocab_size=50257, vocab_padding=1,
        seq_length=1024,
    )  # fmt: skip
    assert parameters(model_shape(model, 12)).total == 124_439_808


def test_nothing_trained_has_no_backward() -> None:
    assert flops_per_token(TINY, trainable_layers=()).backward == 0
    assert flops_per_token(TINY, trainable_layers=()).forward == flops_per_token(TINY).forward


def test_trained_output_over_frozen_layers_costs_only_itself() -> None:
    flops = flops_per_token(TINY, trainable_layers=(), trainable_output=True)
    assert flops.backward == output_flops_per_token(TINY).backward


def test_trained_embedding_pulls_the_gradient_through_every_layer() -> None:
    linear, attention = 2 * (8 * 16 + 8 * 8 + 3 * 8 * 16), 2 * 2 * 4 * 2 * 6
    flops = flops_per_token(TINY, trainable_layers=(), trainable_embedding=True)
    assert flops.backward == 3 * (linear + 2 * attention) + 2 * 8 * 32


def test_unknown_layer() -> None:
    with pytest.raises(ValueError, match=r"no layers \[3\] among 3"):
        flops_per_token(TINY, trainable_layers={0, 3})


@given(st.sets(st.integers(0, 2)), st.integers(0, 2))
def test_training_more_never_costs_less(trained: set[int], more: int) -> None:
    fewer = flops_per_token(TINY, trainable_layers=trained)
    assert fewer.total <= flops_per_token(TINY, trainable_layers=trained | {more}).total
    assert fewer.total < flops_per_token(TINY).total


@pytest.mark.parametrize("shape", SHAPES[:4] + SHAPES[-4:])
def test_tensor_parallel_ranks_share_all_but_norms_and_row_biases(shape: ModelShape) -> None:
    whole, half = (layer_parameters(shape.layers[0], shape, tensor) for tensor in (1, 2))
    replicated = shape.hidden_size * (6 if shape.style == "gpt2" else 2)
    if shape.qk_norm:
        replicated += 2 * shape.layers[0].kv_channels * (2 if shape.style == "gpt2" else 1)
    assert 2 * half - replicated == whole
