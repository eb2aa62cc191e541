from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import BatchConfig, ModelConfig, ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.flops import layer_flops_per_token, output_flops_per_token
from megagrow.model.memory import MemoryModel
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.costs import flops_costs
from megagrow.pipeline.balancing.layer_times import LayerTimes, read_layer_times, timed_settings
from megagrow.pipeline.balancing.layout import costs_for, even_layout, kept_layout, layout_for

MODEL = ModelConfig(
    hidden_size=64, num_attention_heads=4, vocab_size=2048, seq_length=32, ffn_hidden_size=192
)
SHAPE = model_shape(MODEL, 8)
SETTINGS: dict[str, Any] = {
    "precision": "bf16", "micro_size": 2, "parallel": ParallelConfig(),
}  # fmt: skip


def memory_of(**parallel: Any) -> MemoryModel:
    return MemoryModel(
        shape=SHAPE,
        parallel=ParallelConfig(**parallel),
        batch=BatchConfig(global_size=16, micro_size=2),
        data_parallel=1,
    )


def peak(memory: MemoryModel, layout: tuple[int, ...]) -> int:
    return max(rank.total for rank in memory.ranks(layout))


def test_flops_count_the_output_layer() -> None:
    layer, output = layer_flops_per_token(SHAPE.layers[0], SHAPE), output_flops_per_token(SHAPE)
    costs = flops_costs(SHAPE)
    assert (set(costs.layers), costs.first, costs.last) == ({layer.total}, 0, output.total)
    assert 2 < output.total / layer.total < 3
    assert layout_for(memory_of(pipeline=2)) == (5, 3)
    assert layout_for(memory_of(pipeline=2, balance="even")) == (4, 4)
    assert len(layout_for(memory_of(pipeline=2, virtual_pipeline=3))) == 6
    with pytest.raises(LayoutError, match="8 layers cannot fill 16"):
        layout_for(memory_of(pipeline=16))


def test_recomputation_makes_layers_dearer_than_the_output_layer() -> None:
    layer = layer_flops_per_token(SHAPE.layers[0], SHAPE)
    full, selective = flops_costs(SHAPE, "full"), flops_costs(SHAPE, "selective")
    assert full.layers[0] == layer.total + layer.forward
    assert full.last == flops_costs(SHAPE).last
    assert selective.layers[0] - layer.total == 4 * 64 * 32
    assert costs_for(memory_of(pipeline=2, recompute="full")) == full


def test_given_layers_are_taken_as_they_are() -> None:
    assert layout_for(memory_of(pipeline=2, layers_per_chunk=(1, 7))) == (1, 7)


def test_layers_move_where_there_is_memory() -> None:
    free = memory_of(pipeline=2)
    best = layout_for(free)
    tight = memory_of(pipeline=2, memory_limit=peak(free, best) - 1)
    moved = layout_for(tight)
    assert moved != best
    assert peak(free, moved) < peak(free, best)
    assert costs_for(free).imbalance(moved) > costs_for(free).imbalance(best)
    assert layout_for(memory_of(pipeline=2, memory_limit=peak(free, best))) == best


def test_too_little_memory_says_how_much_and_what_would_help() -> None:
    needed = min(peak(memory_of(pipeline=2), (first, 8 - first)) for first in range(1, 8))
    with pytest.raises(LayoutError) as error:
        layout_for(memory_of(pipeline=2, memory_limit=needed - 1))
    said = str(error.value)
    assert said.startswith("no split of 8 layers over 2 pipeline ranks was found within")
    assert "one of these would be enough: micro_size 1, " in said
    fits = memory_of(pipeline=2, memory_limit=needed - 1)
    layout_for(replace(fits, batch=BatchConfig(global_size=16, micro_size=1)))
    with pytest.raises(LayoutError, match="no single change is enough: combine several"):
        layout_for(memory_of(pipeline=2, memory_limit=1000))
    layout_for(memory_of(pipeline=2, memory_limit=needed))


def test_given_layers_do_not_pass_the_limit() -> None:
    limit = peak(memory_of(pipeline=2), (5, 3))
    message = r"layers_per_chunk \[7, 1\] needs .* on pipeline rank 0, .* enough: the balancer's"
    with pytest.raises(LayoutError, match=message):
        layout_for(memory_of(pipeline=2, layers_per_chunk=(7, 1), memory_limit=limit))
    assert layout_for(memory_of(pipeline=2, layers_per_chunk=(5, 3), memory_limit=limit)) == (5, 3)


@given(st.integers(1, 60), st.data())
def test_even_and_kept_layouts_hold_every_layer(layers: int, data: st.DataObject) -> None:
    chunks = data.draw(st.integers(1, layers))
    even = even_layout(layers, chunks)
    assert (sum(even), len(even)) == (layers, chunks)
    assert max(even) - min(even) <= 1
    old = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=9))
    more = sum(old) + data.draw(st.integers(0, 50))
    kept = kept_layout(old, more)
    assert (sum(kept), len(kept)) == (more, len(old))
    assert min(kept) >= 1
    assert kept_layout(old, 3 * sum(old)) == tuple(3 * count for count in old)


def times(**changes: Any) -> LayerTimes:
    known = {
        "settings": timed_settings(SHAPE, **SETTINGS), "device": "abacus", "rounds": 5,
        "layers": {SHAPE.layers[0]: 0.002}, "embedding": 0.001, "output": 0.008,
    }  # fmt: skip
    return LayerTimes(**(known | changes))


def test_measured_times_decide(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text(times().to_json())
    assert read_layer_times(file) == times()
    by_times = memory_of(pipeline=2, balance="times", layer_times=str(file))
    costs = costs_for(by_times)
    assert (costs.layers, costs.first, costs.last) == ((0.002,) * 8, 0.001, 0.008)
    assert costs.device == "abacus"
    assert layout_for(by_times) == (6, 2)
    deeper = replace(by_times, shape=model_shape(MODEL, 16))
    assert layout_for(deeper) == (10, 6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", 128, "hidden_size was 64, and is 128"),
        ("vocab_size", 4096, "padded_vocab_size was 2048, and is 4096"),
        ("style", "gpt2", "style was llama, and is gpt2"),
        ("ffn_hidden_size", 256, "no layer of .*ffn_hidden_size 256 was timed"),
        ("num_query_groups", 2, "num_query_groups 2, "),
    ],
)
def test_times_of_another_shape_are_refused(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    file = tmp_path / "times.json"
    file.write_text(times().to_json())
    other = model_shape(replace(MODEL, **{key: value}), 8)
    with pytest.raises(LayoutError, match=f"of something else: .*{message}"):
        read_layer_times(file).costs(other, **SETTINGS)


def test_times_of_another_training_are_refused() -> None:
    for key, value in (("precision", "fp32"), ("micro_size", 4)):
        with pytest.raises(LayoutError, match=f"{key} was {SETTINGS[key]}, and is {value}"):
            times().costs(SHAPE, **(SETTINGS | {key: value}))
    for key, old, value in (
        ("recompute", "none", "full"),
        ("cross_entropy_fusion", "none", "te"),
        ("gradient_accumulation_fusion", None, False),
    ):
        other = ParallelConfig(**{key: value})
        with pytest.raises(LayoutError, match=f"{key} was {old}, and is {value}"):
            times().costs(SHAPE, **(SETTINGS | {"parallel": other}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ("[" * 100_000, "not JSON: maximum recursion depth"),
        (times().to_json().replace('"schema": 2', '"schema": 1'), "of version 1, and this"),
        (times().to_json().replace('"rounds": 5', '"rounds": 1e999'), "damaged: OverflowError"),
        (times().to_json().replace("0.008", "-1"), "'?-1'? is no number of seconds"),
        (times().to_json().replace("0.008", "NaN"), "nan is no number of seconds"),
        (times().to_json().replace("ffn_hidden_size", "ffn"), "damaged"),
    ],
    ids=[
        "absent", "cut", "list", "empty", "nested", "version", "infinite", "negative", "nan", "key",
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "times.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(LayoutError, match=re.escape(str(file)) + f".*{message}"):
        read_layer_times(file)
