from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import ModelConfig
from megagrow.model.shape import model_shape, round_up


def test_llama_defaults() -> None:
    model = ModelConfig(hidden_size=2048, num_attention_heads=32, vocab_size=32000, seq_length=2048)
    shape = model_shape(model, 3)
    layer = shape.layers[0]
    assert shape.num_layers == 3
    assert shape.layers == (layer,) * 3
    assert (layer.num_attention_heads, layer.num_query_groups, layer.kv_channels) == (32, 32, 64)
    assert layer.ffn_hidden_size == 5504  # 8/3 x 2048 = 5461.3, in multiples of 64
    assert (shape.padded_vocab_size, shape.tie_embeddings) == (32000, False)


def test_gpt2_small() -> None:
    model = ModelConfig(
        style="gpt2", hidden_size=768, num_attention_heads=12, vocab_size=50257, seq_length=1024
    )
    shape = model_shape(model, 12)
    assert shape.layers[0].ffn_hidden_size == 3072
    assert (shape.vocab_size, shape.padded_vocab_size, shape.tie_embeddings) == (50257, 50304, True)


def test_every_default_gives_way() -> None:
    model = ModelConfig(
        style="gpt2", hidden_size=64, num_attention_heads=4, num_query_groups=2, kv_channels=32,
        ffn_hidden_size=100, vocab_size=10, vocab_padding=4, seq_length=8, tie_embeddings=False,
    )  # fmt: skip
    shape = model_shape(model, 1)
    layer = shape.layers[0]
    assert (layer.num_query_groups, layer.kv_channels, layer.ffn_hidden_size) == (2, 32, 100)
    assert (shape.padded_vocab_size, shape.tie_embeddings) == (12, False)


@given(st.integers(0, 10**6), st.integers(1, 1000))
def test_round_up(number: int, multiple: int) -> None:
    rounded = round_up(number, multiple)
    assert rounded % multiple == 0
    assert number <= rounded < number + multiple


@pytest.mark.parametrize("hidden", [48, 64, 96, 128, 2048, 4096])
def test_default_ffn_of_llama_is_the_next_64_at_or_above_8_thirds(hidden: int) -> None:
    model = ModelConfig(hidden_size=hidden, num_attention_heads=4, vocab_size=9, seq_length=8)
    width = model_shape(model, 1).layers[0].ffn_hidden_size
    assert width % 64 == 0
    assert 8 * hidden <= 3 * width < 8 * hidden + 3 * 64
