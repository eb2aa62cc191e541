"""What a single Hopper GPU does: the CUDA kernels, checked and timed, and a growth in flight.

    python benchmarks/gpu.py [--quick] [--save NAME]

1. Builds csrc with nvcc into this checkout.
2. Checks `copy_segments` and `combine_segments` against torch on random tables.
3. Times `copy_segments` with 4 destinations, in turns with a device-to-device copy of the source
   and with 4 torch copies: GB/s moved, and its share of the device copy's.
4. Runs the command line in bf16 on a Llama-style model that grows in flight from 6 to 24 layers
   (1.3 billion parameters): the pause in training steps and over that through a checkpoint, the
   memory it takes, and the MFU of the steps after it.

The last line is one JSON object; the exit code is 0 if every target is met, and 77 where there is
no such GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from _harness import ROOT, finish, print_ratios

HOPPER = (9, 0)
"""Compute capability that csrc is compiled for; newer ones take its PTX."""

SKIPPED = 77
"""Exit code of what cannot run here, as automake has it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, checks, measures, prints and returns the exit code."""
    options = _options(arguments)
    missing = _missing()
    if missing:
        print(f"gpu: {missing}", file=sys.stderr)
        return SKIPPED
    if not options.no_build and not _build():
        print("gpu: csrc was not built, see above", file=sys.stderr)
        return 1
    import _gpu_kernel
    import _growth_pause

    from megagrow.kernels import native

    if native.load("cuda") is None:
        print("gpu: the CUDA kernels do not load, see above", file=sys.stderr)
        return 1
    comparisons = _gpu_kernel.check()
    print(f"{comparisons} random tables: the same as torch, bit for bit")
    gigabytes, segments, rounds = (0.1, 100, 2) if options.quick else (4.0, 10_000, 20)
    ratios, figures = _gpu_kernel.measure(gigabytes, segments, rounds, targets=not options.quick)
    model = _growth_pause.SIZES["quick-gpu" if options.quick else "gpu"]
    found, pause = _growth_pause.measure(model, precision="bf16", targets=not options.quick)
    ratios |= found
    print_ratios(ratios)
    details = {
        "pause": pause,
        "unit": "bandwidth of ours over a device copy's; speed of ours over torch's",
        "gb_per_second": figures,
        "comparisons": comparisons,
        "copies": _gpu_kernel.COPIES,
    }
    return finish("gpu", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a single Hopper GPU does.")
    parser.add_argument(
        "--quick", action="store_true", help="little data, no targets: does it run?"
    )
    parser.add_argument("--no-build", action="store_true", help="csrc is built already")
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


def _missing() -> str:
    """What this machine lacks; empty if nothing."""
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device that torch can use: nothing is measured"
    if torch.cuda.get_device_capability() < HOPPER:
        return f"{torch.cuda.get_device_name()} is older than Hopper: nothing is measured"
    return ""


def _build() -> bool:
    """Builds csrc in place, as `make setup` does; whether it could be."""
    if shutil.which("nvcc") is None:
        print("gpu: no nvcc on the path: add CUDA's bin folder", file=sys.stderr)
        return False
    if importlib.util.find_spec("pybind11") is None:  # pip fetches it for the build
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--editable", str(ROOT)]
    else:
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    environment = {**os.environ, "MEGAGROW_CUDA": "1"}
    print(f"building csrc: {' '.join(command)}", flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
