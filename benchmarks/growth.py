"""What growing costs: the kernel that moves and duplicates the state.

    python benchmarks/growth.py [--quick] [--threads N] [--save NAME]

`copy_segments` on the CPU writes a source of 1 GiB to 4 destinations, as float32 and cast to
bfloat16, and 10,000 segments of 4 to 64 KiB to 4 places each, against

- torch: one `copy_` for each destination (of each segment): `2 g` times the bytes, not `1 + g`.
- bare loop: what memory gives: aligned whole lines, streaming stores, equal shares for all threads,
  no table, no cast. It is compiled into the same extension, writes a block to one destination
  before the next, and is tried with several sizes of block: the best one counts. For the cast it
  moves as many bytes, without casting.

They take turns in one process, in an order that is reversed every round; a ratio is taken in every
round. Results are compared with torch's before anything is timed. The last line is one JSON object;
the exit code is 0 if every target is met.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import _growth_kernel
from _harness import finish, print_ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    size = _growth_kernel.QUICK if options.quick else _growth_kernel.FULL
    ratios, figures = _growth_kernel.measure(size, options.threads, targets=not options.quick)
    print_ratios(ratios)
    details = {
        "unit": "speed of ours over theirs",
        "gb_per_second": figures,
        "copies": _growth_kernel.COPIES,
        "bytes": size.bytes,
        "rounds": size.rounds,
        "threads": options.threads,
    }
    return finish("growth", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What growing costs.")
    parser.add_argument(
        "--quick", action="store_true", help="little data, no targets: does it run?"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
