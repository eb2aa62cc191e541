from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megagrow.kernels import Segments, copy_segments, native, reference
from megagrow.kernels.tables import addresses
from tests.kernels.tables import DTYPES, Drawn, any_bits, column, same_bits, tables

CPU = native.load("cpu")
NATIVE = pytest.mark.skipif(CPU is None, reason="csrc is not built")
SETS = CPU.instruction_sets() if CPU is not None else []


def simple(size: int, count: int = 1, **columns: Any) -> Segments:
    """One segment from the start of source 0 to the starts of `count` destinations."""
    given = {
        "source": column(0),
        "source_start": column(0),
        "length": column(size),
        "first": column(0, count),
        "destination": np.arange(count, dtype=np.int64),
        "destination_start": np.zeros(count, dtype=np.int64),
    }
    return Segments(**{**given, **columns})


def copy_with(
    segments: Segments,
    sources: list[Tensor],
    destinations: list[Tensor],
    scale: np.ndarray | None = None,
    **options: Any,
) -> None:
    """The compiled kernel with an instruction set, or a way of writing, of the test's choice."""
    assert CPU is not None
    CPU.copy(
        addresses(segments.source, segments.source_start, sources),
        segments.length,
        segments.first,
        addresses(segments.destination, segments.destination_start, destinations),
        scale,
        DTYPES.index(sources[0].dtype),
        DTYPES.index(destinations[0].dtype),
        options.pop("threads", 1),
        **options,
    )


@NATIVE
@pytest.mark.parametrize("instructions", SETS)
@given(
    drawn=tables(),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    scales=st.lists(st.sampled_from([1.0, -0.5, 3.0, 1e-3, 0.0]), min_size=1) | st.none(),
    streamed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_same_as_torch(
    instructions: str,
    drawn: Drawn,
    dtypes: tuple[torch.dtype, torch.dtype],
    scales: list[float] | None,
    streamed: bool,
    seed: int,
) -> None:
    segments = drawn.segments()
    sources = any_bits(drawn.one_sizes, dtypes[0], seed)
    ours = any_bits(drawn.many_sizes, dtypes[1], seed + 1)
    theirs = [tensor.clone() for tensor in ours]
    scale = None if scales is None else np.resize(np.float32(scales), len(drawn.many))
    copy_with(segments, sources, ours, scale, instructions=instructions, streamed=streamed)
    reference.copy_segments(segments, sources, theirs, scale=scale)
    plain = dtypes[0] == dtypes[1] and (scale is None or bool((scale == 1).all()))
    assert same_bits(ours, theirs, nan=not plain)


@NATIVE
@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_every_number_is_cast_as_torch_does(
    source: torch.dtype, to: torch.dtype, instructions: str
) -> None:
    if source == torch.float32:  # all exponents and signs, the edges of the short types' rounding
        tops = torch.arange(-(2**15), 2**15, dtype=torch.int64)[:, None] * 2**16
        ends = torch.tensor([0, 1, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
        numbers = (tops + ends).flatten().to(torch.int32).view(torch.float32)
    else:
        numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(source)
    ours = torch.zeros(len(numbers), dtype=to)
    copy_with(simple(len(numbers)), [numbers], [ours], instructions=instructions)
    assert same_bits([ours], [numbers.to(to)], nan=source != to)


@NATIVE
@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("to", DTYPES)
def test_bits_do_not_depend_on_where_a_run_is_cut(
    source: torch.dtype, to: torch.dtype, instructions: str
) -> None:
    """NaN included: an element in a tail is treated like one in a vector."""
    numbers = any_bits([1000], source, 3)[0]
    whole, apart = torch.zeros(2, 1000, dtype=to)
    scale = np.float32([1.5])
    copy_with(simple(1000), [numbers], [whole], scale, instructions=instructions)
    for i in range(1000):
        here = {"instructions": instructions}
        copy_with(simple(1), [numbers[i : i + 1]], [apart[i : i + 1]], scale, **here)
    assert same_bits([whole], [apart])


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_large_and_many_are_shared_among_threads(threads: int) -> None:
    """More than the caches hold, one segment of it huge; every element exactly once."""
    generator = np.random.default_rng(2)
    length = np.concatenate([generator.integers(0, 300, 5000), [3_000_018], column(0, 1, 40_000)])
    start = np.concatenate([[0], np.cumsum(length)])
    total = int(start[-1])
    order = generator.permutation(len(length))
    segments = Segments(
        source=np.zeros(len(length), dtype=np.int64),
        source_start=start[:-1][order],
        length=length[order],
        first=np.arange(len(length) + 1) * 3,
        destination=np.tile(column(0, 1, 0), len(length)),
        destination_start=(start[:-1][order][:, None] + column(0, 7, total)).flatten(),
    )
    source = torch.arange(total, dtype=torch.float32)
    destinations = [torch.full((2 * total,), -1.0), torch.full((total + 8,), -1.0)]
    copy_segments(segments, [source], destinations, threads=threads)
    assert torch.equal(destinations[0], source.repeat(2))
    assert torch.equal(destinations[1][7:-1], source)
    assert destinations[1][:7].eq(-1).all()
    assert destinations[1][-1] == -1


def test_nothing_to_do() -> None:
    nothing = column()
    empty = Segments(
        source=nothing,
        source_start=nothing,
        length=nothing,
        first=column(0),
        destination=nothing,
        destination_start=nothing,
    )
    copy_segments(empty, [], [])
    target = torch.ones(3)
    copy_segments(simple(0), [torch.zeros(0)], [target])
    copy_segments(simple(2, 0), [torch.zeros(2)], [target])
    assert target.eq(1).all()


def test_without_csrc_torch_copies_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    missing = {"cpu": "megagrow.kernels.not_there"}
    monkeypatch.setattr(native, "_MODULES", missing)
    native.load.cache_clear()
    try:
        for _ in range(2):
            target = torch.zeros(2, 5, dtype=torch.bfloat16)
            copy_segments(simple(5, 2), [torch.arange(5.0)], list(target))
            assert target.tolist() == [[0, 1, 2, 3, 4]] * 2
    finally:
        native.load.cache_clear()
    assert len(caplog.messages) == 1
    assert "make setup builds them" in caplog.messages[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"source": column(1)}, "source 0 names tensor 1, but there are 1 sources"),
        ({"source": column(-1)}, "source 0 names tensor -1"),
        ({"source_start": column(3)}, "source 0 takes 3 elements from 3 on, but sources[0] has 5"),
        ({"source_start": column(-1)}, "source 0 takes 3 elements from -1 on"),
        ({"source_start": column(2**63 - 1)}, "source 0 takes 3 elements from 9223372036854775807"),
        ({"length": column(-3)}, "source 0 takes -3 elements"),
        ({"destination": column(0, 2)}, "destination 1 names tensor 2, but there are 2"),
        (
            {"destination_start": column(0, 2)},
            "destination 1 takes 3 elements from 2 on, but destinations[1] has 4",
        ),
    ],
)
def test_a_run_that_leaves_its_tensor_is_refused(columns: Any, message: str) -> None:
    segments = replace(simple(3, 2), **columns)
    destinations = [torch.zeros(3), torch.zeros(4)]
    with pytest.raises(ValueError, match=re.escape(message)):
        copy_segments(segments, [torch.zeros(5)], destinations)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"source": np.zeros(1, dtype=np.int32)}, "Segments.source must be a one-dimensional"),
        ({"length": column(1, 2)}, "Segments.length has 2 entries instead of 1"),
        ({"first": column(0, 1, 2)}, "Segments.first has 3 entries instead of 2"),
        ({"first": column(1, 2)}, "Segments.first goes from 1 to 2, not from 0 to 2"),
        ({"first": column(0, 3)}, "Segments.first goes from 0 to 3, not from 0 to 2"),
    ],
)
def test_a_table_with_odd_columns_is_refused(columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        simple(3, 2, **columns)


def test_rows_that_go_back_are_refused() -> None:
    two = {"source": column(0, 0), "source_start": column(0, 0), "length": column(1, 1)}
    with pytest.raises(ValueError, match=re.escape("goes back at row 1: 3, then 2")):
        simple(1, 2, **two, first=column(0, 3, 2))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(9), "sources[0] of shape (4, 2)"),
        (torch.zeros(9), torch.zeros(18)[::2], "destinations[0] of shape (9,) and strides (2,)"),
        (torch.zeros(9, dtype=torch.int32), torch.zeros(9), "sources[0] is torch.int32: only"),
        (
            torch.zeros(9, device="meta"),
            torch.zeros(9),
            "destinations[0] is on cpu, others on meta",
        ),
    ],
)
def test_other_tensors_are_refused(source: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        copy_segments(simple(3), [source], [target])


def test_mixed_dtypes_and_odd_scales_are_refused() -> None:
    mixed = [torch.zeros(3), torch.zeros(3, dtype=torch.float16)]
    with pytest.raises(ValueError, match="call once per dtype"):
        copy_segments(simple(3, 2), [torch.zeros(3)], mixed)
    for scale in (np.ones(1, dtype=np.float32), np.ones(2)):
        with pytest.raises(ValueError, match=re.escape("it must be float32 [2]")):
            copy_segments(simple(3, 2), [torch.zeros(3)], [torch.zeros(3)] * 2, scale=scale)


@pytest.mark.gpu
@given(
    drawn=tables(),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    scales=st.lists(st.sampled_from([1.0, -0.5, 3.0]), min_size=1) | st.none(),
    seed=st.integers(0, 2**32 - 1),
)
def test_cuda_is_the_same_as_torch(
    drawn: Drawn,
    dtypes: tuple[torch.dtype, torch.dtype],
    scales: list[float] | None,
    seed: int,
) -> None:
    assert native.load("cuda") is not None, "csrc is built without CUDA"
    segments = drawn.segments()
    sources = any_bits(drawn.one_sizes, dtypes[0], seed)
    theirs = any_bits(drawn.many_sizes, dtypes[1], seed + 1)
    ours = [tensor.cuda() for tensor in theirs]
    scale = None if scales is None else np.resize(np.float32(scales), len(drawn.many))
    copy_segments(segments, [tensor.cuda() for tensor in sources], ours, scale=scale)
    reference.copy_segments(segments, sources, theirs, scale=scale)
    plain = dtypes[0] == dtypes[1] and (scale is None or bool((scale == 1).all()))
    assert same_bits([tensor.cpu() for tensor in ours], theirs, nan=not plain)
