"""Prepare the quickstart's data: text, tokenizer and three buckets of rising difficulty.

    python tools/prepare_quickstart.py --output data/quickstart

Nothing is downloaded. It takes well under a minute on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from megagrow.config.quantity import parse_tokens
from megagrow.data.sample_text.prepare import QuickstartData, is_up_to_date, prepare, table
from megagrow.errors import ConfigError, MegagrowError

EPILOG = """\
buckets, by rising difficulty:
  easy     short children's stories from a seeded grammar
  middle   documentation in common words: the prose of docstrings, package descriptions, licences
  hard     documentation in rare words, names and symbols, with the signatures it explains

The documentation is that of the standard library and of the packages installed beside it, so the
same environment and arguments give the same bytes, and another environment gives other text.

written to the output folder:
  easy.bin easy.idx ...   tokens in the format that Megatron datasets read
  tokenizer.json          byte-level BPE, for the `tokenizers` library
  manifest.json           sizes, checksums and arguments; written last
  samples.jsonl           a few hundred documents of each bucket, to look at

Run again with the same arguments, it has nothing to do; killed half-way, run it again.
"""


def _tokens(text: str) -> int:
    try:
        return parse_tokens(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, 2 for input that cannot be used, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        description="Prepare text, tokenizer and token buckets for the quickstart, offline.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder to make, or to complete"
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=8192,
        metavar="N",
        help="ids of the tokenizer, 257 or more (default: 8192)",
    )
    parser.add_argument(
        "--tokens-per-bucket",
        type=_tokens,
        default="2.5M",
        metavar="TOKENS",
        help="most tokens in a bucket, such as 500K or 2.5M (default: 2.5M)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of stories and shuffles (default: 1)"
    )
    options = parser.parse_args(arguments)
    data = QuickstartData(
        folder=options.output,
        vocab_size=options.vocab_size,
        tokens_per_bucket=options.tokens_per_bucket,
        seed=options.seed,
    )
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True)

    try:
        if is_up_to_date(data):
            print(f"{data.folder}: up to date")
            return 0
        reports = prepare(data, say)
    except (MegagrowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: run it again to finish", file=sys.stderr)
        return 130
    say(f"{data.folder} is ready")
    print(f"\n{table(reports)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
