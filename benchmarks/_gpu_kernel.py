"""The kernel half of gpu.py: the CUDA kernels against torch and a device-to-device copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from _harness import Ratio, print_table, ratio
from torch import Tensor

from megagrow.kernels import (
    Combination,
    Noise,
    Segments,
    combine_segments,
    copy_segments,
    reference,
)

COPIES = 4
"""Destinations of every segment."""

BOUND_TARGET = 0.9
"""Least share of the bandwidth of a device-to-device copy."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

CHECKS = 40
"""Random tables that both kernels are compared with torch on, for each pair of dtypes."""

Row = tuple[int, int, int]


def check(seed: int = 1) -> int:
    """Compares both kernels with torch on random tables of any length and alignment.

    Returns:
        The number of comparisons.

    Raises:
        SystemExit: one of them is wrong.
    """
    generator = np.random.default_rng(seed)
    count = 0
    for source in DTYPES.values():
        for target in DTYPES.values():
            for _ in range(CHECKS):
                _check_copy(generator, source, target)
                _check_combine(generator, source, target)
                count += 2
    return count


def measure(
    gigabytes: float, segments: int, rounds: int, *, targets: bool
) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """Achieved bandwidth of `copy_segments`, in turns with a device copy and with torch copies.

    Args:
        gigabytes: size of the large source.
        segments: number of small segments, of 4 to 64 KiB.
        rounds: rounds, after one that is not counted.
        targets: whether to hold the ratios against their targets.
    """
    ratios: dict[str, Ratio] = {}
    figures: dict[str, Any] = {}
    elements = int(gigabytes * 1e9) // 4 // 64 * 64
    cases = {
        "fp32": (torch.float32, torch.float32, [elements]),
        "fp32-bf16": (torch.float32, torch.bfloat16, [elements]),
        "bf16": (torch.bfloat16, torch.bfloat16, [2 * elements]),
        "many small": (torch.float32, torch.float32, _small(segments)),
    }
    for name, (source, target, lengths) in cases.items():
        torch.cuda.empty_cache()
        seconds, traffic = _time(source, target, np.array(lengths, dtype=np.int64), rounds)
        rates = {key: [traffic[key] / each for each in values] for key, values in seconds.items()}
        least = BOUND_TARGET if targets and name != "many small" else None
        ratios[f"{name}/bandwidth of a device copy"] = ratio(
            _over(rates["ours"], rates["device copy"]), at_least=least
        )
        ratios[f"{name}/speed over {COPIES} torch copies"] = ratio(
            _over(seconds["torch"], seconds["ours"])
        )
        figures[name] = _table(name, seconds, rates)
    return ratios, figures


def _small(count: int) -> list[int]:
    generator = np.random.default_rng(2)
    return [int(size) * 4 for size in generator.integers(256, 4096, count, endpoint=True)]


def _time(
    source_dtype: torch.dtype, target_dtype: torch.dtype, length: np.ndarray, rounds: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each contender in each round, and the bytes each one moves."""
    start = np.concatenate([[0], np.cumsum(length)])
    total = int(start[-1])
    source = torch.randn(total, device="cuda").to(source_dtype)
    targets = [torch.empty(total, dtype=target_dtype, device="cuda") for _ in range(COPIES)]
    other = torch.empty_like(source)
    rows = len(length)
    table = Segments(
        source=np.zeros(rows, dtype=np.int64),
        source_start=start[:-1],
        length=length,
        first=np.arange(rows + 1) * COPIES,
        destination=np.tile(np.arange(COPIES), rows),
        destination_start=np.repeat(start[:-1], COPIES),
    )
    runs = [(int(a), int(a + n)) for a, n in zip(start, length, strict=False)]

    def torch_copies() -> None:
        for begin, end in runs:
            for each in targets:
                each[begin:end].copy_(source[begin:end])

    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: copy_segments(table, [source], targets),
        "device copy": lambda: other.copy_(source),
        "torch": torch_copies,
    }
    read, written = total * source.element_size(), total * targets[0].element_size()
    traffic = {
        "ours": read + COPIES * written,
        "device copy": 2 * read,
        "torch": COPIES * (read + written),
    }
    return _take_turns(contenders, rounds), traffic


def _take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Wall seconds by CUDA events, from the queueing of the first to the end of the last kernel."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in order:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            contenders[name]()
            end.record()
            torch.cuda.synchronize()
            if number > 0:
                seconds[name].append(begin.elapsed_time(end) / 1e3)
    return seconds


def _table(
    name: str, seconds: Mapping[str, list[float]], rates: Mapping[str, list[float]]
) -> dict[str, float]:
    rows, figures = [], {}
    for key, values in seconds.items():
        rate, spread = ratio(rates[key]), ratio(values)
        figures[key] = round(rate.value / 1e9, 1)
        quartiles = f"{1e3 * spread.low:,.3f} to {1e3 * spread.high:,.3f}"
        rows.append((key, f"{figures[key]:,.1f}", f"{1e3 * spread.value:,.3f}", quartiles))
    print_table(name, ("contender", "GB/s moved", "ms", "quartiles"), rows)
    return figures


def _over(numerators: list[float], denominators: list[float]) -> list[float]:
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def _check_copy(
    generator: np.random.Generator, source_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    ones, first, many, sizes = _draw(generator)
    table = Segments(
        source=_column(ones, 0),
        source_start=_column(ones, 1),
        length=_column(ones, 2),
        first=first,
        destination=_column(many, 0),
        destination_start=_column(many, 1),
    )
    sources = _numbers(generator, sizes[0], source_dtype)
    theirs = _numbers(generator, sizes[1], target_dtype)
    ours = [each.cuda() for each in theirs]
    drawn = generator.choice(np.float32([1, 1, -0.5, 3e-3]), len(many))
    scale = drawn if generator.random() < 0.5 else None
    copy_segments(table, [each.cuda() for each in sources], ours, scale=scale)
    reference.copy_segments(table, sources, theirs, scale=scale)
    _compare("copy_segments", ours, theirs)


def _check_combine(
    generator: np.random.Generator, source_dtype: torch.dtype, target_dtype: torch.dtype
) -> None:
    ones, first, many, sizes = _draw(generator)
    table = Combination(
        destination=_column(ones, 0),
        destination_start=_column(ones, 1),
        length=_column(ones, 2),
        first=first,
        source=_column(many, 0),
        source_start=_column(many, 1),
        weight=generator.standard_normal(len(many), dtype=np.float32),
    )
    noise = Noise(
        seed=int(generator.integers(2**63)),
        std=generator.choice(np.float32([0, 0.02]), len(ones)),
        start=generator.integers(2**64 - 1, size=len(ones), dtype=np.uint64),
    )
    sources = _numbers(generator, sizes[1], source_dtype)
    theirs = _numbers(generator, sizes[0], target_dtype)
    ours = [each.cuda() for each in theirs]
    combine_segments(table, [each.cuda() for each in sources], ours, noise=noise)
    reference.combine_segments(table, sources, theirs, noise=noise)
    _compare("combine_segments", ours, theirs)


def _draw(
    generator: np.random.Generator,
) -> tuple[list[Row], np.ndarray, list[Row], tuple[list[int], list[int]]]:
    """Runs and their partners, one behind the other with gaps in a few tensors."""
    used = ([0, 0], [0, 0, 0])

    def take(side: int, length: int) -> Row:
        index = int(generator.integers(len(used[side])))
        begin = used[side][index] + int(generator.choice([0, 0, 1, 7, 64]))
        used[side][index] = begin + length
        return index, begin, length

    ones, many, first = [], [], [0]
    for _ in range(int(generator.integers(1, 12))):
        length = int(generator.choice([0, 5, 300, 8192, 8193, 40_000, 100_003]))
        ones.append(take(0, length))
        many += [take(1, length) for _ in range(int(generator.integers(0, 6)))]
        first.append(len(many))
    sizes = ([size + 9 for size in used[0]], [size + 9 for size in used[1]])
    return ones, np.array(first, dtype=np.int64), many, sizes


def _column(rows: list[Row], index: int) -> np.ndarray:
    return np.array([row[index] for row in rows], dtype=np.int64)


def _numbers(generator: np.random.Generator, sizes: list[int], dtype: torch.dtype) -> list[Tensor]:
    arrays = [generator.standard_normal(size, dtype=np.float32) for size in sizes]
    return [torch.from_numpy(array).to(dtype) for array in arrays]


def _compare(what: str, ours: list[Tensor], theirs: list[Tensor]) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        found = a.cpu()
        if not torch.equal(found, b):
            wrong = int((found != b).sum())
            raise SystemExit(
                f"gpu: {what} {a.dtype} differs from torch in {wrong} of {len(b)} elements of "
                f"destination {index}"
            )
