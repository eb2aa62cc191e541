"""The kernel half of growth.py: `copy_segments` on the CPU against torch copies and a bare loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from _harness import Ratio, print_table, ratio
from torch import Tensor

from megagrow.kernels import Segments, copy_segments, native

COPIES = 4
"""Destinations of every segment."""

BOUND_TARGET = 0.85
"""Least share of the traffic that the best bare loop reaches."""

TORCH_TARGETS = {"fp32": 1.8, "fp32-bf16": 1.5, "many small": 3.0}
"""Least speed over one torch copy for each destination."""

BLOCKS = (64, 512, 1024, 4096)
"""Bytes that the bare loop writes to one destination before the next; the best one counts."""

LINE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is copied."""

    bytes: int
    """Bytes of the one large source."""

    segments: int
    """Number of small segments."""

    rounds: int
    """Rounds, after one that is not counted."""


FULL = Size(bytes=2**30, segments=10_000, rounds=12)
QUICK = Size(bytes=2**24, segments=100, rounds=2)


@dataclass(kw_only=True, slots=True)
class Times:
    """What one contender took in each round."""

    wall: list[float] = field(default_factory=list)
    """Seconds."""

    cpu: list[float] = field(default_factory=list)
    """Processor seconds of all threads."""


def measure(size: Size, threads: int, *, targets: bool) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """The ratios, and the figures behind them, after each table was printed.

    Raises:
        SystemExit: csrc is not built.
    """
    if native.load("cpu") is None:
        raise SystemExit("growth: csrc is not built: make setup")
    torch.set_num_threads(threads)
    ratios: dict[str, Ratio] = {}
    figures: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("fp32-bf16", torch.bfloat16)):
        found = _large(size, dtype, threads)
        ratios |= _ratios(name, found, targets=targets)
        traffic = size.bytes + COPIES * (size.bytes // 4) * dtype.itemsize
        figures[name] = _table(f"{name}: 1 segment to {COPIES} places", found, traffic)
    found, elements = _small(size)
    ratios |= _ratios("many small", found, targets=targets)
    title = f"many small: {size.segments} segments to {COPIES} places"
    figures["many small"] = _table(title, found, 4 * elements * (1 + COPIES))
    return ratios, figures


def _large(size: Size, dtype: torch.dtype, threads: int) -> dict[str, Times]:
    """One segment, from the start of a source to the starts of its destinations."""
    count = size.bytes // 4
    source = _aligned(count, torch.float32).normal_()
    destinations = [_aligned(count, dtype).zero_() for _ in range(COPIES)]
    zero = np.zeros(1, dtype=np.int64)
    segments = Segments(
        source=zero,
        source_start=zero,
        length=np.array([count]),
        first=np.array([0, COPIES]),
        destination=np.arange(COPIES),
        destination_start=np.zeros(COPIES, dtype=np.int64),
    )
    module: Any = native.load("cpu")
    places = np.array([each.data_ptr() for each in destinations], dtype=np.uint64)

    def bare(block: int) -> Callable[[], None]:
        written = count * dtype.itemsize
        return lambda: module.stream_bound(
            source.data_ptr(), size.bytes, places, written, block, threads
        )

    def torch_copies() -> None:
        for each in destinations:
            each.copy_(source)

    contenders: dict[str, Callable[[], None]] = {
        "ours": lambda: copy_segments(segments, [source], destinations),
        "torch": torch_copies,
        **{f"bare loop, {block} B": bare(block) for block in BLOCKS},
    }
    contenders["ours"]()
    expected = source.to(dtype)
    if not all(torch.equal(each, expected) for each in destinations):
        raise SystemExit("growth: copy_segments is wrong")
    del expected
    return _take_turns(contenders, size.rounds)


def _small(size: Size) -> tuple[dict[str, Times], int]:
    """Segments of 4 to 64 KiB in random order, of any alignment of float32; and their elements."""
    generator = np.random.default_rng(1)
    length = generator.integers(1024, 16 * 1024, size.segments, endpoint=True)
    starts = np.concatenate([[0], np.cumsum(length)])
    order = generator.permutation(size.segments)
    total = int(starts[-1])
    source = torch.arange(total, dtype=torch.float32)
    destinations = [torch.zeros(total) for _ in range(COPIES)]
    start = starts[:-1][order]
    segments = Segments(
        source=np.zeros(size.segments, dtype=np.int64),
        source_start=start,
        length=length[order],
        first=np.arange(size.segments + 1) * COPIES,
        destination=np.tile(np.arange(COPIES), size.segments),
        destination_start=np.repeat(start, COPIES),
    )
    runs = [(int(a), int(a + n)) for a, n in zip(start, segments.length, strict=True)]

    def torch_copies() -> None:
        for begin, end in runs:
            part = source[begin:end]
            for each in destinations:
                each[begin:end].copy_(part)

    contenders: dict[str, Callable[[], None]] = {
        "ours": lambda: copy_segments(segments, [source], destinations),
        "torch": torch_copies,
    }
    contenders["ours"]()
    if not all(torch.equal(each, source) for each in destinations):
        raise SystemExit("growth: copy_segments is wrong")
    return _take_turns(contenders, size.rounds), total


def _aligned(count: int, dtype: torch.dtype) -> Tensor:
    """A tensor that begins at a line of the cache, as the bare loop needs; torch's all do."""
    tensor = torch.empty(count, dtype=dtype)
    if tensor.data_ptr() % LINE:
        raise SystemExit("growth: torch's allocator does not align to 64 bytes here")
    return tensor


def _take_turns(contenders: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, Times]:
    times = {name: Times() for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in order:
            wall, cpu = time.perf_counter(), time.process_time()
            contenders[name]()
            if number > 0:  # the first round touches the memory
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
    return times


def _ratios(name: str, times: Mapping[str, Times], *, targets: bool) -> dict[str, Ratio]:
    ours, torch_ = times["ours"], times["torch"]
    least = TORCH_TARGETS[name] if targets else None
    found = {
        f"{name}/speed over {COPIES} torch copies": ratio(
            _over(torch_.wall, ours.wall), at_least=least
        ),
        f"{name}/by CPU time": ratio(_over(torch_.cpu, ours.cpu)),
    }
    bare = [each for key, each in times.items() if key.startswith("bare")]
    if bare:
        best = min(bare, key=lambda each: statistics.median(each.wall))
        least = BOUND_TARGET if targets else None
        found[f"{name}/traffic over best bare loop"] = ratio(
            _over(best.wall, ours.wall), at_least=least
        )
        best = min(bare, key=lambda each: statistics.median(each.cpu))
        found[f"{name}/best bare loop by CPU time"] = ratio(_over(best.cpu, ours.cpu))
    return found


def _over(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def _table(title: str, times: Mapping[str, Times], traffic: int) -> dict[str, float]:
    """Prints seconds and the traffic that counts: a read, and a write to every destination."""
    rows, figures = [], {}
    for name, each in times.items():
        spread = ratio(each.wall)
        figures[name] = round(traffic / spread.value / 1e9, 2)
        quartiles = f"{1e3 * spread.low:,.1f} to {1e3 * spread.high:,.1f}"
        cpu = f"{1e3 * statistics.median(each.cpu):,.1f}"
        rows.append((name, f"{figures[name]:.2f}", f"{1e3 * spread.value:,.1f}", quartiles, cpu))
    head = ("contender", f"GB/s of (1 + {COPIES})", "ms", "quartiles", "CPU ms")
    print_table(title, head, rows)
    return figures
