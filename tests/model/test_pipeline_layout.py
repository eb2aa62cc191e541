from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from megatron.core.transformer.enums import LayerType
from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout

from megagrow.config import ParallelConfig
from megagrow.model.pipeline_layout import pipeline_model_parallel_layout
from megagrow.pipeline.balancing.balance import layer_ranges


@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_megatron_reads_every_layer_once_and_where_we_put_it(
    pipeline: int, virtual: int, data: st.DataObject
) -> None:
    chunks = pipeline * virtual
    counts = data.draw(st.lists(st.integers(1, 5), min_size=chunks, max_size=chunks))
    parallel = ParallelConfig(pipeline=pipeline, virtual_pipeline=virtual)
    rows = pipeline_model_parallel_layout(sum(counts), parallel, counts)
    if chunks == 1:
        assert rows is None
        return
    assert rows is not None
    layout = PipelineParallelLayerLayout(rows, pipeline)
    layout.validate_layer_layout(num_layers=sum(counts), mtp_num_layers=0)
    assert layout.virtual_pipeline_model_parallel_size == virtual
    # The public look-ups ask megatron-core's groups; the table behind them needs none.
    ranges = layer_ranges(counts)
    following = 0
    for stage in range(virtual):
        for rank in range(pipeline):
            held = layout.layout[rank][stage].count(LayerType.decoder)
            assert range(following, following + held) == ranges[stage * pipeline + rank]
            following += held
    assert following == sum(counts)


def test_equal_chunks_need_no_telling() -> None:
    assert pipeline_model_parallel_layout(4, ParallelConfig(pipeline=2), None) is None
