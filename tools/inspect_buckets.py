"""Look into difficulty buckets: numbers, sample texts, and a check of every file.

    python tools/inspect_buckets.py data/dclm --bucket hard --near-thresholds

Reads a folder that tools/bucket_by_difficulty.py has finished; writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from megagrow.bucketing.finished import Finished, open_finished
from megagrow.bucketing.inspection import view as view
from megagrow.bucketing.inspection.inspect import choose, level_of, overview, show, source_row
from megagrow.bucketing.inspection.verify import verify
from megagrow.bucketing.progress import Progress
from megagrow.errors import DataError, MegagrowError
from megagrow.tokenization.tokenizer import load

EPILOG = """\
what is shown: a table of the buckets with the scores of their documents, then documents of each,
decoded from the token ids that training reads, with their score and the input file and row they
come from. In a pipe or a file it is plain text.

is the scorer any good? Read the easiest and the hardest documents of the outer buckets, then those
next to the thresholds, which should be hard to tell apart:
  python tools/inspect_buckets.py data/dclm --bucket easy --easiest
  python tools/inspect_buckets.py data/dclm --bucket hard --hardest
  python tools/inspect_buckets.py data/dclm --near-thresholds -n 5
If other thresholds would be better, cut new buckets without tokenizing again:
  python tools/bucket_by_difficulty.py --rebucket data/dclm --output data/other --shares 0.5,0.3,0.2

after a copy to another machine, check every byte:
  python tools/inspect_buckets.py data/dclm --verify -j 8

--verify reads everything: sizes, the sha256 of every index, the CRC-32 of the tokens of every
input file in every bucket, one end-of-document id at the end of each document, ids below the
vocabulary, scores and their order, and that every row is in one place only.

exit codes: 0 fine; 1 --verify found faults; 2 arguments or a folder that cannot be used; 130
interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Show what is in difficulty buckets, or check them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a finished output folder")
    parser.add_argument(
        "--bucket", action="append", metavar="NAME",
        help="only this bucket; may be given several times (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--documents", type=_count, default=3, metavar="N",
        help="documents of each bucket; 0 shows the table alone (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--characters", type=_count, default=600, metavar="N",
        help="characters of each document (default: 600)",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    for choice, text in (
        ("hardest", "those with the highest scores"),
        ("easiest", "those with the lowest scores"),
        ("near-thresholds", "those next to the thresholds of their bucket"),
    ):
        which.add_argument(
            f"--{choice}", dest="choice", action="store_const", const=choice, help=text
        )
    parser.set_defaults(choice="random")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N",
        help="seed of the choice, where none of these is given (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--source", action="store_true",
        help="look each document up in its input file, and show its other fields, such as url",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="check every file; shows no texts")
    parser.add_argument(
        "-j", "--workers", type=_count, default=1, metavar="N",
        help="processes that --verify works in (default: 1)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code that its help lists."""
    options = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal may not know every sign of a text
        sys.stdout.reconfigure(errors="replace")
    try:
        found = open_finished(options.folder)
        if options.verify:
            return _verify(found, options)
        _show(found, options)
    except MegagrowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if options.verify and isinstance(error, DataError) and _is_there(options) else 2
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def _verify(found: Finished, options: argparse.Namespace) -> int:
    faults = verify(found, max(options.workers, 1), Progress(quiet=options.quiet))
    for fault in faults:
        print(f"fault: {fault}")
    documents = sum(file.documents for file in found.files)
    tokens = sum(file.tokens for file in found.files)
    if faults:
        print(f"{found.folder}: {len(faults)} faults; copy or make it again")
        return 1
    print(
        f"{found.folder}: {len(found.files)} files, {documents:,} documents and {tokens:,} tokens "
        f"of {len(found.inputs)} inputs are as they were written"
    )
    return 0


def _is_there(options: argparse.Namespace) -> bool:
    """Whether there is a folder to find faults in."""
    return bool((options.folder / "manifest.json").exists())


def _show(found: Finished, options: argparse.Namespace) -> None:
    levels = [level_of(found, name) for name in options.bucket or found.names]
    unit = str(found.manifest["scorer"]["unit"])
    key = str(found.manifest.get("arguments", {}).get("text_key", "text"))
    note = found.manifest["tokenizer"]
    console = view.console()
    console.print(view.table(overview(found), unit))
    if options.documents == 0:
        return
    tokenizer = load(found.folder / note["file"], end_of_document=note["end_of_document"])
    for level in levels:
        console.print()
        console.print(view.heading(found.names[level], level))
        chosen = choose(
            found, level, count=options.documents, choice=options.choice, seed=options.seed
        )
        for file, number in chosen:
            shown = show(found, file, number, tokenizer, options.characters)
            fields: dict[str, Any] | None = None
            if options.source:
                fields = source_row(found, shown.input, shown.row)
            console.print(view.panel(shown, level, unit, fields, key))


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 0 on")
    return number


if __name__ == "__main__":
    sys.exit(main())
