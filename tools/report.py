"""Write the report of one or several runs.

    python tools/report.py runs/grown runs/scratch --baseline scratch

One HTML file that needs nothing else, a PNG per plot beside it, and a short table here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from megagrow.errors import MegagrowError
from megagrow.report.build import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, or 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(
        description="Write the report of one or several runs: an HTML file and PNG plots."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder that holds metrics.jsonl")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="run to compare the others with (default: the only one that never grew)",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder to write into (default: <first run>/report)"
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="share of the shortest run to average training losses over (default: 0.02)",
    )
    options = parser.parse_args(arguments)
    try:
        report = write_report(
            options.runs,
            baseline=options.baseline,
            output=options.output,
            smoothing=options.smoothing,
        )
    except MegagrowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal may not know every sign of the table
        sys.stdout.reconfigure(errors="replace")
    print(report.text)
    print(f"\nReport: {report.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
