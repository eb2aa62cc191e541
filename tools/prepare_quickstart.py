r"""Prepare the quickstart's text: shards of rising difficulty all mixed up, and a tokenizer.

    python tools/prepare_quickstart.py --output data/quickstart_text
    python tools/bucket_by_difficulty.py data/quickstart_text \
        --tokenizer data/quickstart_text/tokenizer.json --output data/quickstart

Nothing is downloaded. It takes well under a minute on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from megagrow.config.quantity import parse_tokens
from megagrow.data.sample_text.prepare import QuickstartText, is_up_to_date, prepare
from megagrow.errors import ConfigError, MegagrowError

EPILOG = """\
text: one third are short children's stories from a seeded grammar, the rest is documentation:
docstrings with the signatures they explain, package descriptions, licences. It is that of the
standard library and of the packages installed beside it, so the same environment and arguments
give the same bytes, and another environment gives other text.

written to the output folder:
  shard_00000000.jsonl.zst ...   a document a line, in the fields `text`, `source`, `origin`
  tokenizer.json                 byte-level BPE, for the `tokenizers` library
  content.json                   arguments and checksums; written last

Run again with the same arguments, it has nothing to do; killed half-way, run it again. Next comes
tools/bucket_by_difficulty.py, as it would with shards of DCLM.
"""


def _tokens(text: str) -> int:
    try:
        return parse_tokens(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0, 2 for input that cannot be used, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        description="Prepare text shards and a tokenizer for the quickstart, offline.",
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
        "--tokens",
        type=_tokens,
        default="7.5M",
        metavar="TOKENS",
        help="about how much text, such as 500K or 7.5M (default: 7.5M)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of stories and shuffles (default: 1)"
    )
    options = parser.parse_args(arguments)
    text = QuickstartText(
        folder=options.output,
        vocab_size=options.vocab_size,
        tokens=options.tokens,
        seed=options.seed,
    )
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True)

    try:
        if is_up_to_date(text):
            print(f"{text.folder}: up to date")
            return 0
        prepare(text, say)
    except (MegagrowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: run it again to finish", file=sys.stderr)
        return 130
    say(f"{text.folder} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
