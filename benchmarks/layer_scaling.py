"""How fast layer-wise scaled models train: tokens/s against an isotropic model of equal parameters.

    python benchmarks/layer_scaling.py [--quick] [--rounds N] [--layouts one pp2] [--save NAME]

Vanilla, framed, reverse and crown (arXiv 2509.06518) and their isotropic baseline, with as many
weights beside the embeddings and as many FLOPs for a token within 0.5%: the solver moves a point of
the FFN and one of the heads. (With the paper's heads variants have more of them than the baseline,
and of all FLOPs those of attention are the slowest on a CPU.) Each is trained by what
`pretrain_grow.py` runs, in processes of its own; all are alive at once and take turns of a step, in
an order that is reversed every round. A ratio is taken in every round; the result is the median.
With two pipeline stages every model is split by the balancer.

Then the split itself: layers of every shape are timed, and the slowest stage under the balancer's
split by FLOPs is held against that of the best contiguous split by these times, by trying all, for
2 and for 4 stages. The last line is one JSON object; the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import yaml
from _harness import Ratio, finish, print_ratios, print_table, ratio
from _layer_scaling_models import BASELINE, Size, models, section
from _random_buckets import BUCKETS, write_buckets
from _turns import WARM_UP, Team, teams

from megagrow.config import RunConfig, load
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.costs import LayerCosts
from megagrow.pipeline.balancing.layer_times import LayerTimes
from megagrow.plan.schedule import make_plan

SPEED, IMBALANCE = 0.95, 1.05
"""Targets: least tokens/s over the baseline's; most of the slowest stage over the best split's."""

SIZES = {
    "cpu": Size(
        layers=10, hidden=256, head=32, queries_per_group=2, ffn_multiple=32, length=256,
        vocabulary=8192,
    ),
    "cuda": Size(
        layers=18, hidden=768, head=64, queries_per_group=3, ffn_multiple=64, length=1024,
        vocabulary=50304,
    ),
    "quick": Size(
        layers=6, hidden=64, head=8, queries_per_group=2, ffn_multiple=16, length=32,
        vocabulary=512,
    ),
}  # fmt: skip
BATCHES = {"cpu": (8, 2), "cuda": (32, 8), "quick": (4, 2)}
"""Sequences of a step, and of a micro-batch."""

LAYOUTS = {"one": 1, "pp2": 2}
"""Pipeline stages, which are all processes."""

STAGES = (2, 4)
"""Numbers of pipeline stages that splits are compared for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    import torch

    options = _options(arguments)
    cuda = torch.cuda.is_available()
    kind = "quick" if options.quick else "cuda" if cuda else "cpu"
    size, rounds = SIZES[kind], 2 if options.quick else options.rounds
    ratios: dict[str, Ratio] = {}
    details: dict[str, Any] = {"size": asdict(size), "batch": BATCHES[kind], "rounds": rounds}
    with tempfile.TemporaryDirectory(prefix="megagrow-bench-") as folder:
        sequences = BATCHES[kind][0] * (WARM_UP + rounds + 2)
        write_buckets(Path(folder), size.vocabulary, sequences * size.length)
        for layout in options.layouts:
            if cuda and LAYOUTS[layout] > torch.cuda.device_count():
                print(f"{layout}: needs {LAYOUTS[layout]} GPUs, left out", file=sys.stderr)
                continue
            runs = _write_runs(Path(folder), size, kind, rounds, LAYOUTS[layout])
            steps = _measure(runs, rounds, LAYOUTS[layout])
            ratios |= _speeds(layout, steps, None if options.quick else SPEED)
            details[layout] = {
                name: round(BATCHES[kind][0] * size.length / statistics.median(each))
                for name, each in steps.items()
            }
            _print_speeds(layout, details[layout])
        runs = _write_runs(Path(folder), size, kind, rounds, 1)
        found, details["splits"] = _splits(runs, 3 if options.quick else 20, options.quick)
        ratios |= found
    print_ratios(ratios)
    return finish("layer_scaling", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of layer-wise scaled models.")
    parser.add_argument("--quick", action="store_true", help="tiny, no targets: does it run?")
    parser.add_argument("--rounds", type=int, default=12, help="rounds per layout (default: 12)")
    parser.add_argument("--layouts", nargs="+", choices=tuple(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


def _write_runs(folder: Path, size: Size, kind: str, rounds: int, pipeline: int) -> dict[str, Path]:
    """The YAML file of each model."""
    sequences, micro = BATCHES[kind]
    files = {}
    for name, model in models(size, equal_flops=True).items():
        own = folder / f"{name}_{pipeline}"
        document = {
            "output": str(own / "run"),
            "precision": "bf16" if kind == "cuda" else "fp32",
            "model": section(model),
            "data": {
                "path": str(folder),
                "buckets": {bucket: bucket for bucket in BUCKETS},
                "validation_fraction": 0.0,
            },
            "parallel": {"pipeline": pipeline},
            "batch": {"global_size": sequences, "micro_size": micro},
            "learning_rate": {"peak": 1e-3},
            "stages": [
                {
                    "name": "bench",
                    "layers": size.layers,
                    "tokens": (WARM_UP + rounds + 2) * sequences * size.length,
                    "mixture": dict.fromkeys(BUCKETS, 1 / len(BUCKETS)),
                }
            ],
        }
        own.mkdir(exist_ok=True)
        files[name] = own / "run.yaml"
        files[name].write_text(yaml.safe_dump(document, sort_keys=False))
    return files


def _measure(runs: Mapping[str, Path], rounds: int, processes: int) -> dict[str, list[float]]:
    """Seconds of a step of each model, in every round."""
    steps: dict[str, list[float]] = {name: [] for name in runs}
    starts = {
        name: partial(Team, "_contenders", "ours", str(path), size=processes, threads=1)
        for name, path in runs.items()
    }
    with teams(starts) as contenders:
        for number in range(rounds):
            for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
                steps[name].append(contenders[name].turn(1)[0].seconds[0])
    return steps


def _speeds(
    layout: str, steps: Mapping[str, Sequence[float]], target: float | None
) -> dict[str, Ratio]:
    base = steps[BASELINE]
    return {
        f"{layout}/{name}/speed": ratio(
            [theirs / ours for theirs, ours in zip(base, each, strict=True)], at_least=target
        )
        for name, each in steps.items()
        if name != BASELINE
    }


def _print_speeds(layout: str, speeds: Mapping[str, int]) -> None:
    rows = [(name, f"{speed:,}") for name, speed in speeds.items()]
    print_table(f"{layout}: {LAYOUTS[layout]} process(es)", ("model", "tokens/s"), rows)


def _splits(
    runs: Mapping[str, Path], rounds: int, quick: bool
) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """The slowest stage of the balancer's split over that of the best, by measured times."""
    from megagrow.runtime import logging, megatron_core

    logging.configure("WARNING")
    megatron_core.load()
    from megagrow.pipeline.balancing.timing import time_stage

    ratios: dict[str, Ratio] = {}
    details: dict[str, Any] = {}
    for name, path in runs.items():
        config = load(path)
        stage = config.stages[0]
        costs = _costs(config, time_stage(config, stage, rounds, lambda line: None))
        for count in STAGES:
            parallel = replace(stage.parallel, pipeline=count)
            split = make_plan(replace(config, stages=(replace(stage, parallel=parallel),)))
            ours = split.stages[0].layout
            best = min(
                _contiguous(len(costs.layers), count), key=lambda each: _slowest(costs, each)
            )
            key = f"{name}/split in {count}"
            share = _slowest(costs, ours) / _slowest(costs, best)
            ratios[key] = ratio([share], at_most=None if quick else IMBALANCE)
            details[key] = {"by_flops": list(ours), "best_by_times": list(best)}
    return ratios, details


def _costs(config: RunConfig, times: LayerTimes) -> LayerCosts:
    stage = config.stages[0]
    return times.costs(
        model_shape(stage.model, stage.layers),
        precision=config.precision,
        micro_size=stage.batch.micro_size,
        parallel=stage.parallel,
    )


def _contiguous(layers: int, stages: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut layers into stages of at least one."""
    for cuts in combinations(range(1, layers), stages - 1):
        yield tuple(high - low for low, high in pairwise((0, *cuts, layers)))


def _slowest(costs: LayerCosts, counts: Sequence[int]) -> float:
    return float(max(costs.loads(counts)))


if __name__ == "__main__":
    sys.exit(main())
