"""The pause of a growth in flight: runs of the command line that grow a model, timed by themselves.

The same run goes with growth in memory, with growth through a checkpoint, and by hand, in turns:
saved, remapped by `tools/grow_checkpoint.py`, and loaded by a new run. Checkpoints lie on tmpfs
where there is one. Pause, phases, peak memory and step times are what the runs record in
`metrics.jsonl`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _harness import ROOT, Ratio, print_table, ratio

FASTER_THAN_BY_HAND = 10.0
"""Least time of saving, remapping and loading over that in memory."""

PAUSE_STEPS = 3.0
"""Most median training steps of the grown model that a growth may take."""

STAGING_BYTES = 64 * 2**20
"""Staging memory of a growth in memory."""

STEPS = 3
"""Training steps before and after the growth."""

MEMORY = 1.0
"""Most memory taken beyond the old shards, over that of the new model and the staging buffers."""

PATHS = ("memory", "checkpoint", "by hand")


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The model that grows."""

    old_layers: int
    """Depth before."""

    new_layers: int
    """Depth after."""

    hidden: int
    """Width; heads have 64 channels."""

    vocabulary: int
    """Number of token ids."""

    length: int
    """Tokens in a sequence."""

    batch: int
    """Sequences in a step."""

    rounds: int
    """Growths of each kind."""

    layouts: tuple[str, ...] = ("dp2", "dp2-to-pp2")
    """Names in `LAYOUTS`."""


SIZES = {
    "cpu": Size(
        old_layers=3, new_layers=12, hidden=768, vocabulary=8192, length=256, batch=4, rounds=2
    ),
    "gpu": Size(
        old_layers=6, new_layers=24, hidden=2048, vocabulary=32000, length=2048, batch=16,
        rounds=2, layouts=("one",),
    ),
    "quick": Size(
        old_layers=1, new_layers=2, hidden=64, vocabulary=512, length=32, batch=4, rounds=1,
        layouts=("dp2-to-pp2",),
    ),
    "quick-gpu": Size(
        old_layers=1, new_layers=2, hidden=64, vocabulary=512, length=32, batch=4, rounds=1,
        layouts=("one",),
    ),
}  # fmt: skip
"""Llama-style models; `cpu` grows to 98 million parameters, `gpu` to 1.3 billion."""

LAYOUTS: Mapping[str, tuple[int, Mapping[str, Any], Mapping[str, Any]]] = {
    "one": (1, {}, {}),
    "dp2": (2, {}, {}),
    "dp2-to-pp2": (2, {}, {"pipeline": 2}),
}
"""Processes, and the layouts before and after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """One growth."""

    seconds: float
    """From the last step of the old model to the new one being ready."""

    phases: Mapping[str, float]
    """Its parts."""

    step_seconds: float
    """Median training step of the grown model."""

    bytes_moved: int
    """As the run records it."""

    beyond_bytes: int
    """Peak memory of the fullest process, beyond what the old shards left in use."""

    mfu: float | None
    """Model FLOPs utilisation of the grown model's steps; none on a CPU."""


def measure(
    size: Size, *, precision: str, targets: bool
) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """Runs all growths and prints them; what was compared, and the figures."""
    ratios: dict[str, Ratio] = {}
    details: dict[str, Any] = {"size": asdict(size), "precision": precision}
    for layout in size.layouts:
        with tempfile.TemporaryDirectory(prefix="megagrow-bench-", dir=_fastest()) as folder:
            _write_data(Path(folder), size)
            pauses: dict[str, list[Pause]] = {path: [] for path in PATHS}
            for number in range(size.rounds):
                for path in PATHS if number % 2 == 0 else reversed(PATHS):
                    one = by_hand if path == "by hand" else grow
                    pauses[path].append(one(Path(folder), size, layout, path, precision))
                    seconds = pauses[path][-1].seconds
                    print(f"{layout}, through {path}: {seconds:.2f} s", file=sys.stderr, flush=True)
        ratios |= _ratios(layout, size, precision, pauses, targets=targets)
        details[layout] = {path: _summary(each) for path, each in pauses.items()}
        _print(layout, details[layout])
    return ratios, details


def grow(folder: Path, size: Size, layout: str, path: str, precision: str) -> Pause:
    """One run that grows once."""
    records = _train(folder, layout, _config(folder, size, layout, path, precision))
    growth = next(record for record in records if record["event"] == "growth")
    return Pause(
        seconds=growth["seconds"],
        phases=growth["phases"],
        bytes_moved=growth["bytes_moved"],
        beyond_bytes=growth["peak_bytes"] - growth["kept_bytes"],
        **_speed(records, size),
    )


def by_hand(folder: Path, size: Size, layout: str, path: str, precision: str) -> Pause:
    """The same growth, without moments, in three commands: save, remap, load.

    Saving and loading are what the runs spend on that alone; starting their processes is not
    counted, that of the tool is.
    """
    config = _config(folder, size, layout, path, precision)
    small, large = config["stages"]
    saved = _train(folder, layout, {**config, "stages": [small]})
    save = next(record for record in saved if record["event"] == "checkpoint")
    base, grown = folder / "base", folder / "grown"
    (folder / "run").rename(base)
    begun = time.perf_counter()
    layers = ["--layers", str(size.new_layers), "--operator", "stack"]
    _do([sys.executable, str(ROOT / "tools/grow_checkpoint.py"), str(base), *layers,
         "--output", str(grown), "--quiet"])  # fmt: skip
    remap = time.perf_counter() - begun
    large = {key: value for key, value in large.items() if key != "transition"}
    loaded = _train(folder, layout, {**config, "stages": [large], "initialise_from": str(grown)})
    times = {record["event"]: record["time"] for record in reversed(loaded)}
    shutil.rmtree(base)
    shutil.rmtree(grown)
    phases = {"save": save["seconds"], "remap": remap, "load": times["stage"] - times["run"]}
    return Pause(
        seconds=sum(phases.values()),
        phases=phases,
        bytes_moved=0,
        beyond_bytes=0,
        **_speed(loaded, size),
    )


def _train(folder: Path, layout: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run records."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    file = folder / "run.yaml"
    file.write_text(json.dumps(config))  # also YAML
    processes = ["--nproc-per-node", str(LAYOUTS[layout][0])]
    script = [str(ROOT / "pretrain_grow.py"), str(file), "--resume", "never"]
    _do([sys.executable, "-m", "torch.distributed.run", "--standalone", *processes, *script])
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _do(command: Sequence[str]) -> None:
    result = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout}\n{result.stderr}")


def _speed(records: Sequence[Mapping[str, Any]], size: Size) -> dict[str, Any]:
    """The grown model's median step and its MFU."""
    steps = [
        record
        for record in records
        if record["event"] == "step" and record["layers"] == size.new_layers
    ]
    speed = statistics.median(record["tokens_per_second"] for record in steps)
    mfu = statistics.median(record["mfu"] or 0.0 for record in steps)
    return {"step_seconds": size.batch * size.length / speed, "mfu": mfu or None}


def _fastest() -> str | None:
    """The fastest place for checkpoints; None: that of all temporary files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _write_data(folder: Path, size: Size) -> None:
    import numpy as np

    from megagrow.data.writer import BucketWriter

    random = np.random.default_rng(1)
    with BucketWriter(folder / "text", vocab_size=size.vocabulary, eod=0) as writer:
        lengths = random.integers(100, 900, 40 + 4 * STEPS * size.batch * size.length // 500)
        writer.add_documents(random.integers(1, size.vocabulary, lengths.sum()), lengths)


def _config(folder: Path, size: Size, layout: str, path: str, precision: str) -> dict[str, Any]:
    _, before, after = LAYOUTS[layout]
    tokens = STEPS * size.batch * size.length
    through = "memory" if path == "memory" else "checkpoint"
    transition = {
        "operator": "stack", "optimizer": "copy", "learning_rate": "continue", "through": through,
    }  # fmt: skip
    return {
        "output": str(folder / "run"),
        "seed": 1,
        "precision": precision,
        "model": {
            "style": "llama",
            "hidden_size": size.hidden,
            "num_attention_heads": size.hidden // 64,
            "vocab_size": size.vocabulary,
            "seq_length": size.length,
        },
        "data": {
            "path": str(folder),
            "buckets": {"text": "text"},
            "validation_fraction": 0.0,
        },
        "batch": {"global_size": size.batch, "micro_size": 1},
        "learning_rate": {"peak": 1e-4},
        "checkpoint": {"asynchronous": False, "growth_staging": STAGING_BYTES},
        "logging": {"tensorboard": False},
        "stages": [
            {"name": "small", "layers": size.old_layers, "tokens": tokens,
             "mixture": {"text": 1.0}, "parallel": dict(before)},
            {"name": "large", "layers": size.new_layers, "tokens": tokens,
             "mixture": {"text": 1.0}, "parallel": dict(after), "transition": transition},
        ],
    }  # fmt: skip


def _ratios(
    layout: str,
    size: Size,
    precision: str,
    pauses: Mapping[str, Sequence[Pause]],
    *,
    targets: bool,
) -> dict[str, Ratio]:
    ours, fused, hand = (pauses[path] for path in PATHS)
    allowed = _new_state_bytes(size, layout, precision) + STAGING_BYTES
    by_hand = [b.seconds / a.seconds for a, b in zip(ours, hand, strict=True)]
    faster = [b.seconds / a.seconds for a, b in zip(ours, fused, strict=True)]
    steps = [each.seconds / each.step_seconds for each in ours]
    return {
        f"pause/{layout}/by_hand": ratio(
            by_hand, at_least=FASTER_THAN_BY_HAND if targets else None
        ),
        f"pause/{layout}/through_checkpoint": ratio(faster),
        f"pause/{layout}/in_steps": ratio(steps, at_most=PAUSE_STEPS if targets else None),
        f"pause/{layout}/memory": ratio(
            [each.beyond_bytes / allowed for each in ours], at_most=MEMORY if targets else None
        ),
    }


def _new_state_bytes(size: Size, layout: str, precision: str) -> int:
    """Weights, gradients and optimizer state of the grown model, on the fullest process."""
    from megagrow.config import load
    from megagrow.plan.schedule import make_plan

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        file.write_text(json.dumps(_config(Path(folder), size, layout, "memory", precision)))
        stage = make_plan(load(str(file), []), LAYOUTS[layout][0]).stages[-1]
    return max(rank.weights + rank.gradients + rank.optimizer for rank in stage.memory)


def _summary(pauses: Sequence[Pause]) -> dict[str, Any]:
    typical = sorted(pauses, key=lambda pause: pause.seconds)[len(pauses) // 2]
    return {
        "seconds": [round(each.seconds, 3) for each in pauses],
        "phases": {name: round(seconds, 3) for name, seconds in typical.phases.items()},
        "step_seconds": round(typical.step_seconds, 3),
        "mb_moved": round(typical.bytes_moved / 1e6, 1),
        "beyond_mib": round(max(each.beyond_bytes for each in pauses) / 2**20),
        "mfu": typical.mfu and round(typical.mfu, 3),
    }


def _print(layout: str, measured: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [
        (
            path,
            f"{statistics.median(each['seconds']):.2f}",
            " ".join(f"{name} {seconds:.2f}" for name, seconds in each["phases"].items()),
            f"{each['step_seconds']:.2f}",
            f"{each['mb_moved']:,.0f}",
            f"{each['beyond_mib']:,}",
        )
        for path, each in measured.items()
    ]
    head = ("growth through", "seconds", "phases (s)", "a step (s)", "MB moved", "MiB beyond")
    print_table(f"Pause, {layout}", head, rows)
