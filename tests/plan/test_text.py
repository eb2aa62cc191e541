from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import LearningRateConfig
from megagrow.plan import text


@given(st.lists(st.integers(1, 3), min_size=1, max_size=64))
def test_layout_says_every_chunk(counts: list[int]) -> None:
    parts = [part.split("x") for part in text.layout(counts).split()]
    read = [int(part[-1]) for part in parts for _ in range(int(part[0]) if len(part) == 2 else 1)]
    assert read == counts


@pytest.mark.parametrize(
    ("sources", "shown"),
    [
        ([0, 1, 2, 3, 4, 5] * 4, "0-5 x4"),
        ([0, 1, 2] + [3, 4, 5] * 7, "0-5, 3-5 x6"),
        ([0, 0, 0, 1, 1, 1], "0 x2, 0-1, 1 x2"),
        ([0], "0"),
    ],
)
def test_layer_map(sources: list[int], shown: str) -> None:
    assert text.layer_map(sources) == shown


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_layer_map_says_every_layer(sources: list[int]) -> None:
    read: list[int] = []
    for part in text.layer_map(sources).split(", "):
        span, _, count = part.partition(" x")
        first, _, last = span.partition("-")
        read += list(range(int(first), int(last or first) + 1)) * int(count or 1)
    assert read == sources


def test_mixture() -> None:
    assert text.mixture({"easy": 0.8, "hard": 0.2}, None) == "easy 80%, hard 20%"
    ramp = text.mixture({"easy": 1.0, "mid": 0.0}, {"mid": 0.0, "hard": 1.0})
    assert ramp == "easy 100%->0%, mid 0%, hard 0%->100%"


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ({}, "0.001 -> 0.0001 cosine, warmup 0"),
        ({"decay": "constant", "warmup": 5000}, "0.001 constant, warmup 5K"),
        ({"decay": "wsd", "decay_tokens": 2000, "minimum": 0.0, "horizon": 9000},
         "0.001 -> 0 wsd over 2K, warmup 0, horizon 9K"),
    ],
)  # fmt: skip
def test_learning_rate(keys: dict[str, object], shown: str) -> None:
    assert text.learning_rate(LearningRateConfig(peak=1e-3, **keys)) == shown  # type: ignore[arg-type]
