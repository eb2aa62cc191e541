"""`tools/bucket_by_difficulty.py --rebucket`: its own arguments, as it reads no text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megagrow.bucketing.command import arguments as values
from megagrow.bucketing.command import ending
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting.rebucket import RebucketSettings, rebucket
from megagrow.bucketing.settings import DEFAULT_LEVELS, DEFAULT_TOKENS_PER_FILE
from megagrow.runtime.environment import usable_cores

FLAG = "--rebucket"

EPILOG = """\
Every document keeps its score, so neither text nor tokenizer nor scorer is needed: the scores are
read twice or three times, the tokens are copied once. The buckets are, byte for byte, those that
a job over the text would write with the same thresholds. Shares are fitted on all documents, not
on a sample. The folder that is read stays as it is; the new one needs as much disk.

examples:
  # two levels, the harder one with a fifth of the tokens
  python tools/bucket_by_difficulty.py --rebucket data/dclm --output data/two \\
      --levels plain,hard --shares 0.8,0.2
  # thresholds of your own; tools/inspect_buckets.py shows what is next to them
  python tools/bucket_by_difficulty.py --rebucket data/dclm --output data/cut \\
      --levels plain,hard --thresholds 10.5

exit codes: 0 done; 1 the output cannot be written; 2 a folder or arguments that cannot be used;
130 interrupted. After 1 and 130, or a kill, run again to go on.
"""


def is_asked_for(arguments: Sequence[str]) -> bool:
    """Whether these arguments of the bucketing tool are for `main`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return any(each == FLAG or each.startswith(f"{FLAG}=") for each in arguments[:end])


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Cut new buckets from finished ones, without tokenizing again.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        FLAG, required=True, type=Path, metavar="FOLDER", dest="source",
        help="finished output folder to cut anew",
    )  # fmt: skip
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the new buckets"
    )
    parser.add_argument(
        "--levels", type=values.names, default=DEFAULT_LEVELS, metavar="NAME,...",
        help=f"names, easiest first (default: {','.join(DEFAULT_LEVELS)})",
    )  # fmt: skip
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument(
        "--shares", type=values.numbers, metavar="SHARE,...",
        help="share of all tokens for each level (default: equal ones)",
    )  # fmt: skip
    cut.add_argument(
        "--thresholds", type=values.numbers, metavar="SCORE,...", help="scores between the levels"
    )
    parser.add_argument(
        "-j", "--workers", type=int, default=usable_cores(), metavar="N",
        help="processes (default: the usable cores, %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--tokens-per-file", type=values.tokens, default=DEFAULT_TOKENS_PER_FILE, metavar="TOKENS",
        help="write a larger bucket as several files (default: 50B)",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="drop what another job left in the output folder"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code that its help lists."""
    options = build_parser().parse_args(arguments)

    def work() -> dict[str, Any]:
        settings = RebucketSettings(
            source=options.source,
            output=options.output,
            levels=options.levels,
            shares=options.shares,
            thresholds=options.thresholds,
            workers=options.workers,
            tokens_per_file=options.tokens_per_file,
            overwrite=options.overwrite,
        )
        return rebucket(settings, Progress(quiet=options.quiet))

    return ending.run(work, options.output)
