from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.config import ModelConfig
from megagrow.conversion.families import FAMILIES, layout_of
from megagrow.conversion.layout import Converted, Layout, check
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.errors import CheckpointError
from megagrow.model.flops import parameters
from megagrow.model.shape import ModelShape, model_shape


class Tensors:
    """A source in memory."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors, self.reads = tensors, 0

    def keys(self) -> Any:
        return self.tensors.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self.tensors[key].dtype

    def dtype_name(self, key: str) -> str:
        return str(self.dtype(key)).removeprefix("torch.")

    def tensor(self, key: str) -> torch.Tensor:
        self.reads += 1
        return self.tensors[key]


def random_tensors(layout: Layout) -> Tensors:
    return Tensors({key: torch.randn(layout.stored_shape(key)) for key in layout.by_key})


@st.composite
def shapes(draw: st.DrawFn, family: str) -> ModelShape:
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    gpt2 = family == "gpt2"
    channels = 2 * draw(st.integers(1, 3))
    heads = groups * per_group
    model = ModelConfig(
        style="gpt2" if gpt2 else "llama", hidden_size=heads * channels if gpt2 else 6,
        num_attention_heads=heads, num_query_groups=heads if gpt2 else groups,
        kv_channels=channels, ffn_hidden_size=draw(st.integers(1, 5)), vocab_size=11,
        vocab_padding=draw(st.sampled_from([1, 4, 16])), seq_length=3,
        tie_embeddings=draw(st.booleans()), qkv_bias=family == "qwen2", qk_norm=family == "qwen3",
    )  # fmt: skip
    return model_shape(model, draw(st.integers(1, 3)))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(st.data())
def test_there_and_back_is_what_it_was(family: str, data: st.DataObject) -> None:
    shape = data.draw(shapes(family))
    theirs = layout_of(family, replace(shape, padded_vocab_size=shape.vocab_size))
    ours = megatron_layout(shape)
    begin = random_tensors(theirs)
    check(begin, theirs, "begin")
    middle = Converted(begin, theirs, ours)
    check(middle, ours, "middle")
    stored = Tensors({key: middle.tensor(key) for key in middle.keys()})  # noqa: SIM118
    assert sum(tensor.numel() for tensor in stored.tensors.values()) == parameters(shape).total
    end = Converted(stored, ours, theirs)
    for key, tensor in begin.tensors.items():
        assert torch.equal(end.tensor(key), tensor), key
    assert stored.reads == len(stored.tensors)  # a fused tensor once


def test_queries_keys_and_values_are_dealt_by_group() -> None:
    """By hand: two groups of two heads of one channel, as megatron-core's `linear_qkv` has them."""
    shape = model_shape(
        ModelConfig(
            hidden_size=4, num_attention_heads=4, num_query_groups=2, kv_channels=1, vocab_size=4,
            seq_length=2, qkv_bias=True,
        ),
        1,
    )  # fmt: skip
    theirs, ours = layout_of("qwen2", shape), megatron_layout(shape)
    source = random_tensors(theirs)
    layer = "model.layers.0.self_attn."
    source.tensors[f"{layer}q_proj.bias"] = torch.tensor([0.0, 1, 2, 3])
    source.tensors[f"{layer}k_proj.bias"] = torch.tensor([10.0, 11])
    source.tensors[f"{layer}v_proj.bias"] = torch.tensor([20.0, 21])
    fused = Converted(source, theirs, ours).tensor(
        "decoder.layers.0.self_attention.linear_qkv.bias"
    )
    assert fused.tolist() == [0, 1, 10, 20, 2, 3, 11, 21]


def test_faults_of_a_source_are_named() -> None:
    shape = model_shape(
        ModelConfig(hidden_size=4, num_attention_heads=2, vocab_size=128, seq_length=2), 1
    )
    layout = layout_of("llama", shape)

    def fault(change: dict[str, torch.Tensor | None]) -> str:
        source = random_tensors(layout)
        source.tensors.update({key: value for key, value in change.items() if value is not None})
        for key, value in change.items():
            source.tensors.pop(key) if value is None else None
        with pytest.raises(CheckpointError) as caught:
            check(source, layout, "here")
        return str(caught.value)

    assert "here: no tensor model.norm.weight" in fault({"model.norm.weight": None})
    extra = fault({"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(1)})
    assert "lora_A.weight has no place" in extra
    assert "merge_and_unload" in extra
    assert "model.norm.weight is [5]" in fault({"model.norm.weight": torch.ones(5)})
    assert "quantised" in fault({"model.norm.weight": torch.ones(4).to(torch.int8)})
    assert "quantised" in fault({"model.norm.weight": torch.ones(4).to(torch.float8_e4m3fn)})


def test_values_beyond_fp16_are_refused() -> None:
    shape = model_shape(
        ModelConfig(hidden_size=4, num_attention_heads=2, vocab_size=128, seq_length=2), 1
    )
    layout = layout_of("llama", shape)
    source = random_tensors(layout)
    source.tensors["model.norm.weight"][1] = 1e6
    converted = Converted(source, layout, layout, torch.float16)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight.*1e\+06.*fp16"):
        converted.tensor("model.norm.weight")
