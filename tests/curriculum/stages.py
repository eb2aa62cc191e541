"""Stages with nothing but a mixture to say."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from megagrow.config.schema import (
    BatchConfig,
    LearningRateConfig,
    ModelConfig,
    ParallelConfig,
    StageConfig,
)


def stage(mixture: Mapping[str, float], end: Mapping[str, float] | None = None) -> StageConfig:
    return StageConfig(
        name="some stage",
        layers=1,
        tokens=1,
        mixture=dict(mixture),
        mixture_end=None if end is None else dict(end),
        model=ModelConfig(hidden_size=8, num_attention_heads=1, vocab_size=8, seq_length=8),
        parallel=ParallelConfig(),
        batch=BatchConfig(global_size=1, micro_size=1),
        learning_rate=LearningRateConfig(peak=1.0),
    )


def mixtures(buckets: int) -> st.SearchStrategy[dict[str, float]]:
    """Weights that sum to 1, some of them zero or tiny, ties not rare."""
    weight = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.floats(1e-6, 1.0), st.just(1e-4))
    return (
        st.lists(weight, min_size=buckets, max_size=buckets)
        .filter(lambda weights: sum(weights) > 0.0)
        .map(lambda weights: {f"b{i}": w / sum(weights) for i, w in enumerate(weights)})
    )


@st.composite
def stages(draw: st.DrawFn, most_buckets: int = 8, ramping: bool | None = None) -> StageConfig:
    buckets = draw(st.integers(1, most_buckets))
    ramp = draw(st.booleans()) if ramping is None else ramping
    return stage(draw(mixtures(buckets)), draw(mixtures(buckets)) if ramp else None)
