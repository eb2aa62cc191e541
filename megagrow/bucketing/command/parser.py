"""What one can ask `tools/bucket_by_difficulty.py` for."""

from __future__ import annotations

import argparse
from pathlib import Path

from megagrow.bucketing.cluster.slurm import DEFAULT_TASKS
from megagrow.bucketing.command.arguments import names, numbers, tokens
from megagrow.bucketing.planning.view import add_arguments as add_plan_arguments
from megagrow.bucketing.settings import DEFAULT_LEVELS, DEFAULT_TOKENS_PER_FILE
from megagrow.runtime.environment import usable_cores

EPILOG = """\
inputs: .jsonl, .jsonl.zst (or .zstd), .jsonl.gz and .parquet, told apart by content; files,
folders, quoted globs, s3:// and hf:// addresses, and @LIST, a file with one of these in a line.

what is done:
  1. a seeded sample over many files fits the scorer's counts and the thresholds, which are frozen
     in OUTPUT/levels.json; the sample also checks the fast engine against the tokenizer's library
  2. every file is read once: text, tokens, score, level
  3. the levels are joined into OUTPUT/NAME.bin and .idx, and manifest.json makes them complete
Every row of the input is in exactly one bucket, or counted as rejected with its reason.

scorers:
  surprisal       how rare the document's tokens are in the sample, or in --reference (default)
  readability     Flesch-Kincaid grade
  linear:DIR      one weight per token, made by tools/train_difficulty_classifier.py
  distilbert:DIR  a DistilBERT classifier, from a folder or the Hugging Face hub; slow on CPUs
  distilbert-int8:DIR  the same in int8, exported by the trainer's --export-onnx; for CPUs
  DIR             a folder with scorer.json, such as the scorer/ of an earlier output

examples:
  # thirds of the tokens, in four processes
  python tools/bucket_by_difficulty.py shards/ --tokenizer tokenizer.json --output data/thirds -j 4
  # two levels, the harder one with a fifth of the tokens
  python tools/bucket_by_difficulty.py shards/ --tokenizer tokenizer.json --output data/two \\
      --levels plain,hard --shares 0.8,0.2
  # more shards by the very same rule
  python tools/bucket_by_difficulty.py more/ --tokenizer tokenizer.json --output data/more \\
      --frozen data/thirds/levels.json
  # in 64 Slurm tasks of 4 cores
  python tools/bucket_by_difficulty.py 'dclm/*.zst' --tokenizer tokenizer.json \\
      --output data/dclm --executor slurm --tasks 64 --slurm-cpus 4 --slurm-time 4:00:00 --wait

  # what it would cost, from a sample; writes nothing
  python tools/bucket_by_difficulty.py shards/ --tokenizer tokenizer.json --output data/thirds \\
      --plan --price-per-core-hour 0.04
  # other levels of buckets that are there, without their text (--rebucket --help)
  python tools/bucket_by_difficulty.py --rebucket data/thirds --output data/two --levels plain,hard

exit codes: 0 done; 1 the output cannot be written; 2 input or arguments that cannot be used;
3 some input files are damaged, all others are done; 130 interrupted. After 1, 3 and 130, or a
kill, run again to go on.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Sort text shards into difficulty buckets of tokens.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="text shards; see below")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the buckets"
    )
    _add_text(parser)
    _add_levels(parser)
    work = parser.add_argument_group("work")
    work.add_argument(
        "-j", "--workers", type=int, default=usable_cores(), metavar="N",
        help="processes (default: the usable cores, %(default)s)",
    )  # fmt: skip
    work.add_argument(
        "--tokens-per-file", type=tokens, default=DEFAULT_TOKENS_PER_FILE, metavar="TOKENS",
        help="write a larger bucket as several files (default: 50B)",
    )  # fmt: skip
    work.add_argument(
        "--skip-damaged", action="store_true",
        help="finish without damaged files; they are listed in inputs.jsonl and in the manifest",
    )  # fmt: skip
    work.add_argument(
        "--overwrite", action="store_true", help="drop what another job left in the output folder"
    )
    # For the job that finishes what one with --overwrite began.
    work.add_argument(
        "--no-overwrite", dest="overwrite", action="store_false", help=argparse.SUPPRESS
    )
    work.add_argument("--quiet", action="store_true", help="show no progress")
    add_plan_arguments(parser)
    _add_cluster(parser)
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("cluster", "all nodes must see the inputs and the output")
    cluster.add_argument(
        "--executor", choices=("local", "slurm", "ray"), default="local",
        help="where files are read: in processes of this machine, in an array of Slurm tasks and a "
        "job that finishes, or in Ray tasks; the result is the same (default: local)",
    )  # fmt: skip
    cluster.add_argument(
        "--tasks", type=int, metavar="N",
        help=f"tasks (default: {DEFAULT_TASKS} for Slurm, one for each core of the Ray cluster)",
    )  # fmt: skip
    cluster.add_argument(
        "--wait", action="store_true",
        help="with slurm: stay until the jobs have ended, also those of an earlier launch",
    )  # fmt: skip
    cluster.add_argument("--slurm-partition", metavar="NAME", help="partition")
    cluster.add_argument("--slurm-time", metavar="TIME", help="time limit of each task")
    cluster.add_argument(
        "--slurm-cpus", type=int, default=1, metavar="N",
        help="cores, and worker processes, of each task (default: 1)",
    )  # fmt: skip
    cluster.add_argument(
        "--slurm-mem", default="2G", metavar="SIZE", help="memory for each core (default: 2G)"
    )
    cluster.add_argument(
        "--slurm-option", action="append", default=[], type=_key_value, metavar="KEY=VALUE",
        help="another option of sbatch, such as account=nlp; may be repeated",
    )  # fmt: skip


def _add_text(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument_group("text and tokens")
    text.add_argument(
        "--tokenizer", required=True, type=Path, metavar="PATH",
        help="tokenizer.json, GPT-2's vocab.json beside merges.txt, a .tiktoken or SentencePiece "
        "file, or the folder of one",
    )  # fmt: skip
    text.add_argument(
        "--end-of-document", metavar="TOKEN",
        help="token that ends every document (default: the tokenizer's <|endoftext|> or the like)",
    )  # fmt: skip
    text.add_argument(
        "--pattern", metavar="NAME", help="splitting pattern of a .tiktoken file, such as cl100k"
    )
    text.add_argument(
        "--text-key", default="text", metavar="NAME",
        help="field or column that holds the text (default: text)",
    )  # fmt: skip
    text.add_argument(
        "--engine", choices=("auto", "gigatoken", "reference"), default="auto",
        help="what encodes: gigatoken where it can, or the tokenizer's own library, many times "
        "slower; both give the same ids (default: auto)",
    )  # fmt: skip


def _add_levels(parser: argparse.ArgumentParser) -> None:
    levels = parser.add_argument_group("levels")
    levels.add_argument(
        "--levels", type=names, default=DEFAULT_LEVELS, metavar="NAME,...",
        help=f"names, easiest first (default: {','.join(DEFAULT_LEVELS)})",
    )  # fmt: skip
    cut = levels.add_mutually_exclusive_group()
    cut.add_argument(
        "--shares", type=numbers, metavar="SHARE,...",
        help="share of all tokens for each level (default: equal ones)",
    )  # fmt: skip
    cut.add_argument(
        "--thresholds", type=numbers, metavar="SCORE,...", help="scores between the levels"
    )
    cut.add_argument(
        "--frozen", type=Path, metavar="FILE",
        help="levels.json of an earlier output: its names, scorer and thresholds are applied",
    )  # fmt: skip
    levels.add_argument(
        "--scorer", default="surprisal", metavar="SCORER", help="see below (default: surprisal)"
    )
    levels.add_argument(
        "--reference", nargs="+", default=[], metavar="INPUT",
        help="general text to count tokens in for surprisal (default: the sample of the inputs)",
    )  # fmt: skip
    levels.add_argument(
        "--sample-documents", type=tokens, default=20_000, metavar="N",
        help="documents to fit on (default: 20K)",
    )  # fmt: skip
    levels.add_argument(
        "--sample-shards", type=int, default=64, metavar="N",
        help="most files to take them from (default: 64)",
    )  # fmt: skip
    levels.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of the sample (default: 1)"
    )


def _key_value(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.removeprefix("--"), value
