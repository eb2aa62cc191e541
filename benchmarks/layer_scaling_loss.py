"""What layer-wise scaling does to the loss: all variants and the baseline, at equal FLOPs.

    python benchmarks/layer_scaling_loss.py --data data/quickstart --output runs/layer_scaling
                                            [--tflops N] [--seeds 1 2] [--jobs N] [--save NAME]

Every variant of arXiv 2509.06518 and the isotropic baseline, of equal parameters beside the
embeddings (within 0.5%; the solver moves one FFN endpoint), trained from the same seeds on the same
buckets in equal shares for the same training FLOPs, one process a run, `--jobs` at a time. The
published comparison cannot be relied on: its loader read every token as two. Prints validation
losses at the end of each run, with their spread over the seeds and the difference from the baseline
of the same seed. Nothing is a target: whatever comes out is the result.

Runs that are complete are not run again, and one that was stopped goes on. On the data of
`make quickstart`, or any folder of `tools/bucket_by_difficulty.py` with a small vocabulary.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from _harness import ROOT, finish, print_table
from _layer_scaling_models import BASELINE, Size, models, section

from megagrow.config import load
from megagrow.plan.schedule import RunPlan, make_plan

SIZE = {"layers": 12, "hidden": 128, "head": 16, "queries_per_group": 2, "ffn_multiple": 16}
QUICK = {**SIZE, "layers": 6, "hidden": 64, "head": 8}
LENGTH, BATCH, MICRO = 128, 32, 32
PEAK = 3e-3
STEP = LENGTH * BATCH


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, prints and returns the exit code."""
    options = _options(arguments)
    manifest = json.loads((options.data / "manifest.json").read_text())
    sizes = QUICK if options.quick else SIZE
    size = Size(**sizes, length=LENGTH, vocabulary=manifest["vocab_size"])
    plans: dict[tuple[str, int], RunPlan] = {}
    files: list[Path] = []
    for name, model in models(size, equal_flops=False).items():
        for seed in options.seeds:
            folder = options.output / f"{name}_{seed}"
            written = section(model)
            file = _write(folder, options.data, sorted(manifest["buckets"]), written, size, seed, 1)
            per_step = make_plan(load(file), 1).flops
            steps = max(1, round(options.tflops * 1e12 / per_step))
            file = _write(
                folder, options.data, sorted(manifest["buckets"]), written, size, seed, steps
            )
            plans[name, seed] = make_plan(load(file), 1)
            files.append(file)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(_train, files))
    losses = {key: _final_loss(options.output / f"{key[0]}_{key[1]}") for key in plans}
    summary = _summary(plans, losses, options.seeds)
    _print(summary)
    details = {
        "unit": "nats per token, mean over the buckets' validation losses at the end of the run",
        "data": str(options.data),
        "tflops": options.tflops,
        "seeds": options.seeds,
        "size": asdict(size),
        "batch": BATCH,
        "learning_rate": PEAK,
        "variants": summary,
    }
    return finish("layer_scaling_loss", {}, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Loss of layer-wise scaling at equal FLOPs.")
    parser.add_argument("--data", type=Path, required=True, help="folder with a manifest.json")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--tflops", type=float, default=40.0, help="of each run (default: 40)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--quick", action="store_true", help="a tiny model: does it run?")
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


def _write(
    folder: Path,
    data: Path,
    buckets: Sequence[str],
    model: dict[str, Any],
    size: Size,
    seed: int,
    steps: int,
) -> Path:
    """The YAML file of a run of `steps` optimizer steps."""
    tokens = steps * STEP
    document = {
        "name": folder.name,
        "output": str(folder),
        "seed": seed,
        "precision": "fp32",
        "model": model,
        "data": {"path": str(data), "buckets": {name: name for name in buckets}},
        "batch": {"global_size": BATCH, "micro_size": MICRO},
        "learning_rate": {"peak": PEAK, "warmup": tokens // 20, "decay": "cosine"},
        "stages": [
            {
                "name": "train",
                "layers": size.layers,
                "tokens": tokens,
                "mixture": dict.fromkeys(buckets, 1 / len(buckets)),
            }
        ],
        "checkpoint": {"interval": max(tokens // 4, 1), "keep": 1},
        "evaluation": {"interval": max(tokens // 4, 1), "sequences": 512},
        "logging": {"tensorboard": False, "interval": 10},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _train(file: Path) -> None:
    """Runs a file to its end, on one core."""
    command = [sys.executable, str(ROOT / "pretrain_grow.py"), str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (file.parent / "output.txt").open("a") as output:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{file} ended with {done.returncode}; see {file.parent}/output.txt")
    print(f"{file.parent.name}: loss {_final_loss(file.parent):.4f}", file=sys.stderr)


def _final_loss(folder: Path) -> float:
    """The last validation loss of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return float([record["loss"] for record in records if record["event"] == "eval"][-1])


def _summary(
    plans: dict[tuple[str, int], RunPlan], losses: dict[tuple[str, int], float], seeds: list[int]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for name, _ in plans):
        stage = plans[name, seeds[0]].stages[0]
        here = [losses[name, seed] for seed in seeds]
        differences = [losses[name, seed] - losses[BASELINE, seed] for seed in seeds]
        found[name] = {
            "non_embedding_parameters": stage.parameters.non_embedding,
            "tokens": stage.tokens,
            "tflops": round(stage.flops / 1e12, 2),
            "ffn": [layer.ffn_hidden_size for layer in stage.shape.layers],
            "heads": [layer.num_attention_heads for layer in stage.shape.layers],
            "losses": [round(loss, 4) for loss in here],
            "mean": round(statistics.mean(here), 4),
            "standard_deviation": round(statistics.stdev(here), 4) if len(here) > 1 else None,
            "over_baseline": [round(each, 4) for each in differences],
            "mean_over_baseline": round(statistics.mean(differences), 4),
        }
    return found


def _print(summary: dict[str, Any]) -> None:
    rows = [
        (
            name,
            f"{each['non_embedding_parameters'] / 1e6:.2f}",
            f"{each['tokens'] / 1e6:.2f}",
            f"{each['tflops']:.1f}",
            " ".join(f"{loss:.4f}" for loss in each["losses"]),
            f"{each['mean']:.4f}",
            "" if each["standard_deviation"] is None else f"{each['standard_deviation']:.4f}",
            f"{each['mean_over_baseline']:+.4f}",
        )
        for name, each in summary.items()
    ]
    head = ("model", "weights M", "tokens M", "TFLOP", "losses", "mean", "s.d.", "- baseline")
    print_table("Validation loss at equal FLOPs; weights without embeddings", head, rows)


if __name__ == "__main__":
    sys.exit(main())
