"""What our training loop costs: tokens/s and peak memory against three plainer loops.

    python benchmarks/train_overhead.py [--quick] [--precision bf16] [--save NAME]

- ours: what `pretrain_grow.py` runs, all but evaluation and saves.
- bare: the shortest megatron-core loop over the same model, wrapper, optimizer and layout, with
  its data in memory. What differs is the loop alone.
- stock: the same loop over megatron-core as it comes (information, no target).
- plain: a plain PyTorch GPT of the same shape, on one process.

All are alive at once, each in processes of its own, and take turns of a few steps, in an order
that is reversed every round: a machine that is busier for a while is so for all. A ratio is taken
in every round, of the median step; the result is the median of these over the rounds. The
processor time of the steps is compared too: it says the same on a machine that is busy with other
things. On a CPU, peak memory (of the whole process, interpreter and libraries included) is taken
in a few steps of processes of their own; on a GPU it is what torch's allocator says. The last line
is one JSON object; the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from _harness import Ratio, finish, print_ratios, print_table, ratio
from _random_buckets import BUCKETS, write_buckets
from _turns import WARM_UP, Team, Turn, teams

SPEED_TARGETS = {"bare": 0.97, "plain": 0.9}
"""Least tokens/s of ours over theirs."""

MEMORY_TARGETS = {"bare": 1.02}
"""Most peak memory of ours over theirs."""

MEMORY_STEPS = 2
"""Steps after the warm-up in which memory is measured."""

EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Lets glibc give large blocks back when they are freed. By default it keeps them in a heap whose
holes depend on the timing of threads: the peak of one and the same loop varies by 3%."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The model and batch to train."""

    layers: int
    """Depth."""

    hidden: int
    """Width; heads have 64 channels, a quarter of them key/value heads where that divides."""

    length: int
    """Tokens in a sequence."""

    vocabulary: int
    """Number of token ids."""

    micro: int
    """Sequences in a micro-batch; a step takes two micro-batches, whatever the layout."""

    turn: int
    """Steps in a turn."""

    rounds: int
    """Rounds."""


SIZES = {
    "cpu": Size(layers=8, hidden=256, length=256, vocabulary=8192, micro=4, turn=1, rounds=20),
    "cuda": Size(layers=12, hidden=1024, length=2048, vocabulary=32768, micro=4, turn=4, rounds=24),
    "quick": Size(layers=2, hidden=64, length=32, vocabulary=512, micro=2, turn=8, rounds=2),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How the size is trained."""

    style: str
    """Model family."""

    precision: str
    """`fp32` or `bf16`."""

    rounds: int
    """Rounds."""

    threads: int
    """Threads of each process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the processes share the model, and who competes there."""

    name: str
    """Its name in the result."""

    processes: int
    """Number of processes."""

    pipeline: int
    """Pipeline stages; the rest is data parallel."""

    contenders: tuple[str, ...]
    """Functions of `_contenders`."""


LAYOUTS = (
    Layout(name="one", processes=1, pipeline=1, contenders=("ours", "bare", "stock", "plain")),
    Layout(name="dp2", processes=2, pipeline=1, contenders=("ours", "bare")),
    Layout(name="pp2", processes=2, pipeline=2, contenders=("ours", "bare")),
)


@dataclass(kw_only=True, slots=True)
class Figures:
    """What was measured of one contender."""

    step: list[float] = field(default_factory=list)
    """Median seconds of a step, per round."""

    cpu: list[float] = field(default_factory=list)
    """Processor seconds of a step, per round, all processes together."""

    peaks: list[int] = field(default_factory=list)
    """Highest memory use of each process, in bytes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    cuda = _has_cuda()
    size = SIZES["quick" if options.quick else "cuda" if cuda else "cpu"]
    work = Work(
        style=options.style,
        precision=options.precision or ("bf16" if cuda else "fp32"),
        rounds=options.rounds or size.rounds,
        threads=options.threads,
    )
    layouts = [layout for layout in LAYOUTS if layout.name in options.layouts]
    ratios: dict[str, Ratio] = {}
    measured: dict[str, Any] = {}
    for layout in layouts:
        if cuda and layout.processes > _gpus():
            print(f"{layout.name}: needs {layout.processes} GPUs, left out")
            continue
        figures = _measure(layout, size, work)
        ratios |= _ratios(layout, figures, targets=not options.quick)
        step_tokens = 2 * size.micro * size.length
        measured[layout.name] = {
            name: _summary(each, step_tokens) for name, each in figures.items()
        }
        _print_table(layout, measured[layout.name], figures)
    print_ratios(ratios)
    details = {
        "unit": "tokens/s of ours over theirs; peak memory of ours over theirs",
        "measured": measured,
        "model": asdict(size),
        **asdict(work),
    }
    return finish("train_overhead", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory of the training loop.")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model and no targets: does it run?"
    )
    parser.add_argument("--rounds", type=int, help="rounds per layout")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on a GPU")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of each process (default: 1; with more, OpenMP's barriers magnify other jobs)",
    )
    parser.add_argument("--style", choices=("llama", "gpt2"), default="llama")
    names = [layout.name for layout in LAYOUTS]
    parser.add_argument("--layouts", nargs="+", choices=names, default=names)
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


def _measure(layout: Layout, size: Size, work: Work) -> dict[str, Figures]:
    figures = {name: Figures() for name in layout.contenders}
    with tempfile.TemporaryDirectory(prefix="megagrow-bench-") as folder:
        run = _write_run(Path(folder), layout, size, work)
        with teams(_starts(layout, run, work.threads)) as contenders:
            for number in range(work.rounds):
                order = list(contenders)[:: 1 if number % 2 == 0 else -1]
                for name in order:
                    _note(figures[name], contenders[name].turn(size.turn))
        if not _has_cuda():
            with teams(_starts(layout, run, work.threads, EXACT_MALLOC)) as contenders:
                for name, team in contenders.items():
                    figures[name].peaks = [turn.peak_bytes for turn in team.turn(MEMORY_STEPS)]
    return figures


def _note(figures: Figures, turns: Sequence[Turn]) -> None:
    steps = len(turns[0].seconds)
    figures.step.append(statistics.median(turns[0].seconds))
    figures.cpu.append(sum(turn.cpu_seconds for turn in turns) / steps)
    figures.peaks = [turn.peak_bytes for turn in turns]


def _starts(
    layout: Layout, run: Path, threads: int, environ: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Callable[[], Team]]:
    return {
        name: partial(
            Team,
            "_contenders",
            name,
            str(run),
            size=layout.processes,
            threads=threads,
            environ=environ,
        )
        for name in layout.contenders
    }


def _write_run(folder: Path, layout: Layout, size: Size, work: Work) -> Path:
    """Three buckets of random tokens, and the run that draws from them."""
    import yaml

    steps = WARM_UP + max(work.rounds * size.turn, MEMORY_STEPS) + 1
    tokens = steps * 2 * size.micro * size.length
    write_buckets(folder, size.vocabulary, tokens)
    heads = max(size.hidden // 64, 1)
    document = {
        "output": str(folder / "run"),
        "seed": 1,
        "precision": work.precision,
        "model": {
            "style": work.style,
            "hidden_size": size.hidden,
            "num_attention_heads": heads,
            "num_query_groups": heads // 4 if work.style == "llama" and heads % 4 == 0 else heads,
            "vocab_size": size.vocabulary,
            "seq_length": size.length,
        },
        "data": {
            "path": str(folder),
            "buckets": {name: name for name in BUCKETS},
            "validation_fraction": 0.0,
        },
        "parallel": {"pipeline": layout.pipeline},
        "batch": {"global_size": 2 * size.micro, "micro_size": size.micro},
        "learning_rate": {"peak": 1e-3, "warmup": tokens // 10},
        "stages": [
            {
                "name": "bench",
                "layers": size.layers,
                "tokens": tokens,
                "mixture": {"easy": 0.6, "middle": 0.3, "hard": 0.1},
                "mixture_end": {"easy": 0.2, "middle": 0.3, "hard": 0.5},
            }
        ],
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _ratios(layout: Layout, figures: Mapping[str, Figures], *, targets: bool) -> dict[str, Ratio]:
    ours = figures["ours"]
    found: dict[str, Ratio] = {}
    for name, theirs in figures.items():
        if name == "ours":
            continue
        key = f"{layout.name}/{name}"
        speed = SPEED_TARGETS.get(name) if targets else None
        memory = MEMORY_TARGETS.get(name) if targets else None
        found[f"{key}/speed"] = ratio(_over(theirs.step, ours.step), at_least=speed)
        found[f"{key}/speed_by_cpu_time"] = ratio(_over(theirs.cpu, ours.cpu))
        # The process that takes most beyond its counterpart counts.
        found[f"{key}/memory"] = ratio([max(_over(ours.peaks, theirs.peaks))], at_most=memory)
    return found


def _over(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def _summary(figures: Figures, step_tokens: int) -> dict[str, Any]:
    return {
        "tokens_per_second": round(step_tokens / statistics.median(figures.step)),
        "step_ms": round(1e3 * statistics.median(figures.step), 2),
        "cpu_ms": round(1e3 * statistics.median(figures.cpu), 2),
        "peak_mib": [round(peak / 2**20) for peak in figures.peaks],
    }


def _print_table(
    layout: Layout, measured: Mapping[str, Mapping[str, Any]], figures: Mapping[str, Figures]
) -> None:
    rows = []
    for name, each in measured.items():
        spread = ratio(figures[name].step)
        rows.append(
            (
                name,
                f"{each['tokens_per_second']:,}",
                f"{each['step_ms']:,.1f}",
                f"{1e3 * spread.low:,.1f} to {1e3 * spread.high:,.1f}",
                f"{each['cpu_ms']:,.1f}",
                " + ".join(f"{peak:,}" for peak in each["peak_mib"]),
            )
        )
    head = ("loop", "tokens/s", "step ms", "quartiles", "CPU ms", "peak MiB")
    title = f"{layout.name}: {layout.processes} process(es), pipeline {layout.pipeline}"
    print_table(title, head, rows)


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


if __name__ == "__main__":
    sys.exit(main())
