from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megagrow.kernels import Combination, Noise, combine_segments, native, reference
from megagrow.kernels.normal import normals
from megagrow.kernels.tables import addresses
from tests.kernels.tables import DTYPES, Drawn, any_bits, column, same_bits, tables

CPU = native.load("cpu")
NATIVE = pytest.mark.skipif(CPU is None, reason="csrc is not built")
SETS = CPU.instruction_sets() if CPU is not None else []
WEIGHTS = st.lists(st.sampled_from([1.0, 0.5, -0.25, 1 / 3, 0.0]), min_size=1)


def simple(size: int, count: int = 1, **columns: Any) -> Combination:
    """One sum of the starts of `count` sources, with weight 1."""
    given = {
        "destination": column(0),
        "destination_start": column(0),
        "length": column(size),
        "first": column(0, count),
        "source": np.arange(count, dtype=np.int64),
        "source_start": np.zeros(count, dtype=np.int64),
        "weight": np.ones(count, dtype=np.float32),
    }
    return Combination(**{**given, **columns})


def noise_of(rows: int, seed: int = 5) -> Noise:
    std = np.resize(np.float32([0.02, 0.0, 1.5]), rows)
    # Counters on both sides of the wrap, of every remainder by 4.
    start = np.uint64(2**64 - 3000) + np.arange(rows, dtype=np.uint64) * np.uint64(997)
    return Noise(seed=seed, std=std, start=start)


@NATIVE
@pytest.mark.parametrize("instructions", SETS)
@given(
    drawn=tables(),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    weights=WEIGHTS,
    noisy=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_same_as_torch(
    instructions: str,
    drawn: Drawn,
    dtypes: tuple[torch.dtype, torch.dtype],
    weights: list[float],
    noisy: bool,
    seed: int,
) -> None:
    combination = drawn.combination(np.resize(np.float32(weights), len(drawn.many)))
    sources = any_bits(drawn.many_sizes, dtypes[0], seed)
    ours = any_bits(drawn.one_sizes, dtypes[1], seed + 1)
    theirs = [tensor.clone() for tensor in ours]
    rows = len(combination.length)
    noise = noise_of(rows, seed) if noisy else None
    assert CPU is not None
    CPU.combine(
        addresses(combination.destination, combination.destination_start, ours),
        combination.length,
        combination.first,
        addresses(combination.source, combination.source_start, sources),
        combination.weight,
        noise.std if noise else np.zeros(rows, dtype=np.float32),
        noise.start if noise else np.zeros(rows, dtype=np.uint64),
        seed,
        DTYPES.index(dtypes[0]),
        DTYPES.index(dtypes[1]),
        1,
        instructions,
    )
    reference.combine_segments(combination, sources, theirs, noise=noise)
    assert same_bits(ours, theirs, nan=True)


def test_average_by_hand() -> None:
    sources = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 6.0, 9.0])]
    target = torch.zeros(3, dtype=torch.bfloat16)
    half = simple(3, 2, weight=np.float32([0.5, 0.5]))
    combine_segments(half, sources, [target])
    assert target.tolist() == [3.0, 4.0, 6.0]


def test_sums_are_rounded_one_by_one_in_the_order_given() -> None:
    """In another order, or with a fused multiply-add, other bits would come."""
    sources = [torch.full((40,), value) for value in (1e8, 3.0, -1e8)]
    target = torch.zeros(40)
    combine_segments(simple(40, 3), sources, [target])
    assert target.eq(0).all()
    back = simple(40, 3, source=column(0, 2, 1))
    combine_segments(back, sources, [target])
    assert target.eq(3).all()
    x = 1 + 2.0**-12
    squares = simple(40, 2, weight=np.float32([-(x * x), x]), source=column(1, 0))
    combine_segments(squares, [torch.full((40,), x), torch.ones(40)], [target])
    assert target.eq(0).all()


def test_no_term_gives_zero_or_noise_alone() -> None:
    target = torch.ones(9)
    combine_segments(simple(9, 0), [], [target])
    assert target.eq(0).all()
    noise = Noise(seed=1, std=np.float32([1.0]), start=np.uint64([7]))
    combine_segments(simple(9, 0), [], [target], noise=noise)
    assert np.array_equal(target.numpy(), normals(1, 7, 9))


@pytest.mark.parametrize("cuts", [[], [1], [500, 777, 1999], [4, 8, 1000]])
def test_noise_does_not_depend_on_the_shards(cuts: list[int]) -> None:
    source, whole = torch.ones(2000), torch.zeros(2000)
    one = Noise(seed=9, std=np.float32([0.5]), start=np.uint64([40]))
    combine_segments(simple(2000), [source], [whole], noise=one)
    edges = np.array([0, *cuts, 2000])
    parts = [torch.zeros(int(size)) for size in np.diff(edges)]
    count = len(parts)
    combination = Combination(
        destination=np.arange(count),
        destination_start=np.zeros(count, dtype=np.int64),
        length=np.diff(edges),
        first=np.arange(count + 1),
        source=np.zeros(count, dtype=np.int64),
        source_start=edges[:-1],
        weight=np.ones(count, dtype=np.float32),
    )
    start = np.uint64(40) + edges[:-1].astype(np.uint64)
    noise = Noise(seed=9, std=np.full(count, 0.5, dtype=np.float32), start=start)
    combine_segments(combination, [source], parts, noise=noise)
    assert same_bits([torch.cat(parts)], [whole])
    assert whole.std() == pytest.approx(0.5, rel=0.1)


def test_threads_agree() -> None:
    source = torch.arange(3_000_000, dtype=torch.float32)
    noise = Noise(seed=2, std=np.float32([1.0]), start=np.uint64([3]))
    found = [torch.zeros(len(source)) for _ in range(2)]
    for threads, target in zip((1, 5), found, strict=True):
        combine_segments(simple(len(source)), [source], [target], noise=noise, threads=threads)
    assert same_bits(found[:1], found[1:])


def test_without_csrc_torch_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "module_for", lambda device: None)
    target = torch.zeros(3)
    combine_segments(simple(3, 2), [torch.ones(3), torch.arange(3.0)], [target])
    assert target.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"source": column(0, 2)}, "source 1 names tensor 2, but there are 2"),
        ({"source_start": column(0, 4)}, "source 1 takes 3 elements from 4 on, but sources[1]"),
        ({"destination_start": column(1)}, "destination 0 takes 3 elements from 1 on"),
    ],
)
def test_a_run_that_leaves_its_tensor_is_refused(columns: Any, message: str) -> None:
    combination = replace(simple(3, 2), **columns)
    with pytest.raises(ValueError, match=re.escape(message)):
        combine_segments(combination, [torch.zeros(5), torch.zeros(5)], [torch.zeros(3)])


def test_odd_weights_and_noise_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Combination.weight must be float32 [2]")):
        simple(3, 2, weight=np.ones(2))
    with pytest.raises(ValueError, match="the seed of the noise is -1"):
        Noise(seed=-1, std=np.float32([1]), start=np.uint64([0]))
    with pytest.raises(ValueError, match=re.escape("Noise.start must be uint64 [n]")):
        Noise(seed=1, std=np.float32([1]), start=column(0))
    two = Noise(seed=1, std=np.float32([1, 1]), start=np.uint64([0, 0]))
    with pytest.raises(ValueError, match="noise is for 2 sums, but there are 1"):
        combine_segments(simple(3), [torch.zeros(3)], [torch.zeros(3)], noise=two)


@pytest.mark.gpu
@given(
    drawn=tables(),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    weights=WEIGHTS,
    noisy=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_cuda_is_the_same_as_torch(
    drawn: Drawn,
    dtypes: tuple[torch.dtype, torch.dtype],
    weights: list[float],
    noisy: bool,
    seed: int,
) -> None:
    assert native.load("cuda") is not None, "csrc is built without CUDA"
    combination = drawn.combination(np.resize(np.float32(weights), len(drawn.many)))
    sources = any_bits(drawn.many_sizes, dtypes[0], seed)
    theirs = any_bits(drawn.one_sizes, dtypes[1], seed + 1)
    ours = [tensor.cuda() for tensor in theirs]
    noise = noise_of(len(combination.length), seed) if noisy else None
    combine_segments(combination, [tensor.cuda() for tensor in sources], ours, noise=noise)
    reference.combine_segments(combination, sources, theirs, noise=noise)
    assert same_bits([tensor.cpu() for tensor in ours], theirs, nan=True)
