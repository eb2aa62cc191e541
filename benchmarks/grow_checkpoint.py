"""What growing a model on disk costs, against copying as many bytes with `cp`.

    python benchmarks/grow_checkpoint.py [--quick] [--data DIR] [--save NAME]

A model is grown to twice its layers by stacking, as a user does it: `python
tools/grow_checkpoint.py MODEL --layers N --output DIR`, in a process of its own whose start-up
counts. `cp -r` copies a folder with the same bytes as that output. They take turns, in an order
that is reversed every round. Both read what is in the page cache and write fresh files on the same
file system; what a turn wrote is removed before the next one, outside its time. A ratio is the
seconds of `cp` over those of the tool, taken in every round.

- `folder`: a Llama-shaped Hugging Face folder of random bf16 weights.
- `checkpoint`: one of megagrow's own checkpoints, bf16 weights and fp32 master weights, with its
  checksums verified before and written after. It has no target.

Neither `cp` nor the tool waits for the disk. In `synced` every file is synced after either, and
that counts too; it has no target. In a file system in memory it says nothing new.

Before anything is timed, the grown folder is read back: every tensor must be that of its old layer,
bit by bit, with --quick too.

The last line is one JSON object; the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _harness import ROOT, Ratio, finish, print_ratios, print_table, ratio

TARGET = 0.7
"""Seconds of `cp` over seconds of the tool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured."""

    hidden: int
    """Hidden size; the FFN is four times as wide."""

    layers: int
    """Of the model that is grown."""

    vocabulary: int
    """Embedding rows, and rows of the output layer."""

    rounds: int
    """Turns of `cp` and of the tool."""


SIZES = {
    "folder": Size(hidden=2048, layers=15, vocabulary=32000, rounds=5),  # 2.1 GB, 3.9 when grown
    "checkpoint": Size(hidden=1024, layers=8, vocabulary=32000, rounds=3),  # 1.9 GB when grown
}
QUICK = dict.fromkeys(SIZES, Size(hidden=64, layers=2, vocabulary=256, rounds=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one turn took."""

    seconds: float
    """Wall-clock time of the process, from its start to its end."""

    synced: float
    """The same, and syncing what it wrote."""

    cpu_seconds: float
    """Processor time of the process."""

    peak_bytes: int
    """Its peak resident size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    sizes = QUICK if options.quick else SIZES
    ratios: dict[str, Ratio] = {}
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.data, prefix="grow-checkpoint-") as folder:
        details["start_up"] = _start_up(1 if options.quick else 3)
        details["file_system"] = _file_system(Path(folder))
        for kind in options.parts:
            turns, details[kind] = _measure(kind, sizes[kind], Path(folder))
            target = TARGET if kind == "folder" and not options.quick else None
            for name, seconds in (("speed", "seconds"), ("synced", "synced")):
                ratios[f"{kind}/{name} of cp"] = ratio(
                    [
                        getattr(cp, seconds) / getattr(tool, seconds)
                        for cp, tool in zip(turns["cp"], turns["tool"], strict=True)
                    ],
                    at_least=target if name == "speed" else None,
                )
    _print(details, options.parts)
    print_ratios(ratios)
    return finish("grow_checkpoint", ratios, details, options.save)


def _measure(kind: str, size: Size, work: Path) -> tuple[dict[str, list[Turn]], dict[str, Any]]:
    """All turns of `cp` and the tool, and what is told of them."""
    model, like, output = work / "model", work / "like", work / "output"
    numbers = [str(number) for number in (size.hidden, size.layers, size.vocabulary)]
    _other_process("make", str(model), *numbers)
    if kind == "checkpoint":
        folder = model.rename(work / "folder")
        _tool("convert_checkpoint", "from-hf", str(folder), "--output", str(model), "--quiet")
        shutil.rmtree(folder)
    grow = (str(model), "--layers", str(2 * size.layers), "--quiet", "--output")
    _tool("grow_checkpoint", *grow, str(like))
    if kind == "folder":
        _other_process("compare", str(model), str(like), str(size.layers))
    contenders: dict[str, Callable[[], Turn]] = {
        "cp": lambda: _turn(["cp", "-r", str(like), str(output)], output),
        "tool": lambda: _turn(_command("grow_checkpoint", *grow, str(output)), output),
    }
    turns = _rounds(contenders, size.rounds, output)
    details = {
        "input_bytes": _bytes(model),
        "output_bytes": _bytes(like),
        "rounds": size.rounds,
        "median": {name: _summary(found) for name, found in turns.items()},
    }
    for folder in (model, like):
        shutil.rmtree(folder)
    return turns, details


def _rounds(
    contenders: Mapping[str, Callable[[], Turn]], rounds: int, output: Path
) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            turns[name].append(contenders[name]())
            shutil.rmtree(output)
    return turns


def _turn(command: Sequence[str], output: Path) -> Turn:
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    text = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {text.decode()[-4000:]}")
    for path in _files(output):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)
    return Turn(
        seconds=seconds,
        synced=time.perf_counter() - begun,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _summary(turns: Sequence[Turn]) -> dict[str, float]:
    return {
        "seconds": round(statistics.median(turn.seconds for turn in turns), 3),
        "synced_seconds": round(statistics.median(turn.synced for turn in turns), 3),
        "cpu_seconds": round(statistics.median(turn.cpu_seconds for turn in turns), 3),
        "peak_mib": round(max(turn.peak_bytes for turn in turns) / 2**20),
    }


def _start_up(repeats: int) -> dict[str, float]:
    """Seconds until the tool has read its arguments, and what importing torch alone takes."""
    commands = {
        "tool": _command("grow_checkpoint", "--help"),
        "import torch": [sys.executable, "-c", "import torch"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            found[name].append(time.perf_counter() - begun)
    return {name: round(statistics.median(seconds), 3) for name, seconds in found.items()}


def _command(tool: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *arguments]


def _tool(tool: str, *arguments: str) -> None:
    _checked(_command(tool, *arguments))


def _other_process(*arguments: str) -> None:
    """With torch: a new process counts the size of its parent as its own until it begins."""
    _checked([sys.executable, str(ROOT / "benchmarks" / "_grow_checkpoint_model.py"), *arguments])


def _checked(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-4000:]}")


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _file_system(folder: Path) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _print(details: Mapping[str, Any], parts: Sequence[str]) -> None:
    rows = [
        (
            f"{kind}, {details[kind]['output_bytes'] / 1e9:.2f} GB: {name}",
            f"{found['seconds']:.2f}",
            f"{found['synced_seconds']:.2f}",
            f"{found['cpu_seconds']:.2f}",
            f"{found['peak_mib']:,.0f}",
        )
        for kind in parts
        for name, found in details[kind]["median"].items()
    ]
    head = ("written", "seconds", "synced", "CPU s", "peak MiB")
    print_table(f"Medians ({details['file_system']})", head, rows)
    start = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in details["start_up"].items())
    print(f"start-up, which counts: {start}\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What growing a model on disk costs.")
    parser.add_argument("--quick", action="store_true", help="tiny, no targets: does it run?")
    parser.add_argument("--parts", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where to put 10 GB (default: the system's)"
    )
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
