"""What growing costs: the kernel that moves and duplicates the state, and the pause of a run.

    python benchmarks/growth.py [--quick] [--threads N] [--parts kernel pause] [--save NAME]

Kernel: `copy_segments` on the CPU writes a source of 1 GiB to 4 destinations, as float32 and cast
to bfloat16, and 10,000 segments of 4 to 64 KiB to 4 places each, against

- torch: one `copy_` for each destination (of each segment): `2 g` times the bytes, not `1 + g`.
- bare loop: what memory gives: aligned whole lines, streaming stores, equal shares for all threads,
  no table, no cast. It is compiled into the same extension, writes a block to one destination
  before the next, and is tried with several sizes of block: the best one counts. For the cast it
  moves as many bytes, without casting.

They take turns in one process, in an order that is reversed every round; a ratio is taken in every
round. Results are compared with torch's before anything is timed.

Pause: runs of the command line on two processes that grow a model from 3 to 12 layers (98 million
parameters) in flight, in memory and through a checkpoint in turns, as they time themselves: the
pause over that through a checkpoint (on tmpfs, where there is one), the pause in steps of the grown
model, and the memory it takes beyond the old shards over that of the new model, optimizer and
staging.

The last line is one JSON object; the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import _growth_kernel
import _growth_pause
from _harness import Ratio, finish, print_ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    targets = not options.quick
    ratios: dict[str, Ratio] = {}
    details: dict[str, Any] = {"threads": options.threads}
    if "kernel" in options.parts:
        size = _growth_kernel.QUICK if options.quick else _growth_kernel.FULL
        found, figures = _growth_kernel.measure(size, options.threads, targets=targets)
        ratios |= found
        details["kernel"] = {
            "unit": "speed of ours over theirs",
            "gb_per_second": figures,
            "copies": _growth_kernel.COPIES,
            "bytes": size.bytes,
            "rounds": size.rounds,
        }
    if "pause" in options.parts:
        model = _growth_pause.SIZES["quick" if options.quick else "cpu"]
        found, details["pause"] = _growth_pause.measure(model, precision="fp32", targets=targets)
        ratios |= found
    print_ratios(ratios)
    return finish("growth", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What growing costs.")
    parser.add_argument(
        "--quick", action="store_true", help="little data, no targets: does it run?"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parts = ("kernel", "pause")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
