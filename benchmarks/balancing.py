"""What splitting a deep model over a long pipeline costs, and whether the split is the best.

    python benchmarks/balancing.py [--quick] [--save NAME]

1,000 layers on 64 stages, for several kinds of layer costs, without a memory limit and with one
that the best split does not keep, where layers take equal (`limit`) and unequal (`limit, unequal`)
shares of the memory. A ratio is the processor time of one split, the fastest of several, over 50
ms; its quartiles are over draws of the costs.

The cost of the slowest chunk is compared with that of a plain reference: a binary search for the
smallest bound that chunks can keep, with all places that each chunk can end at. If they differ, the
run fails, with --quick too. Only the first draw of each kind is compared: the reference is slow.

The last line is one JSON object; the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from _harness import Ratio, finish, print_ratios, ratio

from megagrow.config import BatchConfig, ModelConfig, ParallelConfig
from megagrow.model.memory import Held, MemoryModel
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.balance import balance
from megagrow.pipeline.balancing.costs import LayerCosts
from megagrow.pipeline.balancing.room import Room

BUDGET_S = 0.05
"""Processor seconds of one split: the target."""

LIMIT = 0.95
"""Memory limit, of what the best split without one needs."""

MODEL = ModelConfig(hidden_size=1024, num_attention_heads=16, vocab_size=128000, seq_length=2048)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured."""

    layers: int
    """Of the model."""

    pipeline: int
    """Stages."""

    seeds: int
    """Draws of each kind of random costs."""

    repeats: int
    """Splits of each draw; the fastest counts."""


FULL = Size(layers=1000, pipeline=64, seeds=5, repeats=5)
QUICK = Size(layers=60, pipeline=8, seeds=2, repeats=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    parser = argparse.ArgumentParser(description="What splitting a deep model costs.")
    parser.add_argument("--quick", action="store_true", help="small, no targets: does it run?")
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    ratios: dict[str, Ratio] = {}
    wrong: list[str] = []
    for kind in ("equal", "big head", "random", "lognormal", "one heavy layer"):
        for limit in ("none", "limit", "limit, unequal"):
            found = [_measure(kind, limit, seed, size) for seed in range(size.seeds)]
            name = kind if limit == "none" else f"{kind}, {limit}"
            wrong += [name for _, best in found if not best]
            target = None if options.quick else 1.0
            ratios[f"{name}/of 50 ms"] = ratio(
                [seconds / BUDGET_S for seconds, _ in found], at_most=target
            )
    print_ratios(ratios)
    details = {"layers": size.layers, "pipeline": size.pipeline, "not_the_best": wrong}
    status = finish("balancing", ratios, details, options.save)
    return 1 if wrong else status


def _measure(kind: str, limit: str, seed: int, size: Size) -> tuple[float, bool]:
    """Processor seconds of a split, and whether it is the best as far as was looked."""
    costs, memory = _costs(kind, seed, size), _memory(limit, seed, size)
    room = None
    if limit != "none":
        free = balance(costs, size.pipeline)
        assert free is not None
        room = Room(memory, int(LIMIT * max(rank.total for rank in memory.ranks(free))))
    seconds = []
    for _ in range(size.repeats):
        fresh = None if room is None else Room(room.memory, room.limit)  # nothing cached
        begun = time.process_time()
        counts = balance(costs, size.pipeline, room=fresh)
        seconds.append(time.process_time() - begun)
    if counts is None or sum(counts) != size.layers or (room and not room.holds(counts)):
        return min(seconds), False
    if seed > 0:
        return min(seconds), True
    best = _reference(costs, size.pipeline, room)
    return min(seconds), max(costs.loads(counts)) == best


def _costs(kind: str, seed: int, size: Size) -> LayerCosts:
    """Whole numbers, so that sums are exact whatever their order."""
    draw = random.Random(seed)
    parts = [1000] * size.layers
    if kind == "random":
        parts = [draw.randint(0, 2000) for _ in parts]
    elif kind == "lognormal":
        parts = [round(1000 * draw.lognormvariate(0, 1)) for _ in parts]
    elif kind == "one heavy layer":
        parts = [draw.randint(900, 1100) for _ in parts]
        parts[draw.randrange(size.layers)] = 1500 * size.layers // size.pipeline
    last = 700 * size.layers // size.pipeline if kind == "big head" else 500
    return LayerCosts(layers=tuple(parts), last=last)


def _memory(limit: str, seed: int, size: Size) -> MemoryModel:
    draw = random.Random(seed)
    shape = model_shape(MODEL, size.layers)
    if limit == "limit, unequal":
        widths = (draw.choice((1024, 2048, 2816, 4096, 5504)) for _ in shape.layers)
        layers = zip(shape.layers, widths, strict=True)
        shape = replace(
            shape, layers=tuple(replace(layer, ffn_hidden_size=width) for layer, width in layers)
        )
    return MemoryModel(
        shape=shape,
        parallel=ParallelConfig(pipeline=size.pipeline),
        batch=BatchConfig(global_size=4 * size.pipeline, micro_size=1),
        data_parallel=1,
    )


def _reference(costs: LayerCosts, pipeline: int, room: Room | None) -> int:
    """The smallest bound on a chunk's cost, by trying all places a chunk can end at."""
    low, high = 0, int(costs.total)
    farthest = [_farthest(room, rank, len(costs.layers)) for rank in range(pipeline)]
    while low < high:
        middle = (low + high) // 2
        if _keeps(costs, middle, farthest):
            high = middle
        else:
            low = middle + 1
    return low


def _keeps(costs: LayerCosts, bound: int, farthest: Sequence[Sequence[int]]) -> bool:
    layers = [int(cost) for cost in costs.layers]
    layers[0] += int(costs.first)
    layers[-1] += int(costs.last)
    reached = {0}
    for ends in farthest:
        following: set[int] = set()
        for start in sorted(reached, reverse=True):
            load = 0
            for end in range(start + 1, ends[start] + 1):
                load += layers[end - 1]
                if load > bound or end in following:  # a later start reached the rest, too
                    break
                following.add(end)
        reached = following
    return len(layers) in reached


def _farthest(room: Room | None, rank: int, layers: int) -> list[int]:
    """For every start, the last end of a chunk that `rank` has memory for, by two pointers."""
    if room is None:
        return [layers] * (layers + 1)
    weights, kept = room.memory.layer_parameters(), room.memory.layer_activations()
    memory = replace(room.memory, shape=replace(room.memory.shape, layers=()))  # not read again
    found, end, parameters, activations = [], 0, 0, 0
    for start in range(layers + 1):
        while end < layers:
            held = Held(
                layers=end + 1 - start,
                parameters=parameters + weights[end],
                kept=activations + kept[end],
                widest=0,
            )
            if memory.rank(rank, held).total > room.limit:
                break
            parameters, activations, end = held.parameters, held.kept, end + 1
        found.append(end)
        if start < layers:
            if end > start:
                parameters, activations = parameters - weights[start], activations - kept[start]
            else:
                end = start + 1
    return found


if __name__ == "__main__":
    sys.exit(main())
