"""What data preparation costs: MB of text a second and memory, against the tools in use.

    python benchmarks/data.py [--input FILE ...] [--tokenizer PATH] [--rounds N] [--quick]

- ours: `tools/bucket_by_difficulty.py` with frozen thresholds: three levels by surprisal, from the
  shards to the manifest. `steady` is the second and later pass of one long-lived worker.
- megatron: the path of Megatron-LM's `preprocess_data.py`, on the first documents.
- datatrove: its reader and `MegatronDocumentTokenizer`, on the same documents.
- megatron-fast: the path of Megatron-LM's `preprocess_data_fast.py`, which takes one file: on
  everything joined, and as one run for each shard.
- encode_files: gigatoken reads and encodes, and writes nothing. The bound.

Each runs in a fresh process on one core; they take turns, in an order that is reversed every
round. A ratio is taken in every round; the result is the median over the rounds. That all make the
same documents is checked first. More is measured: two workers, memory with three times the text,
the scorer's share, and the writing of an index. The last line is one JSON object; the exit code is
0 if every target is met.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _data_checks as checks
from _data_corpus import CACHE, TIMES_LARGER, Corpus, Size, prepare
from _data_rounds import Measured, Work, datatrove_argument, fast_argument
from _harness import Ratio, finish, print_ratios, ratio

from megagrow.errors import DataError

FULL = Size(shard_characters=41_000_000, vocabulary=32_768, part=1_500)
QUICK = Size(shard_characters=600_000, vocabulary=2_048, part=60)

AT_LEAST = {
    "megatron/speed": 25.0,
    "datatrove/speed": 20.0,
    "megatron-fast/speed": 1.5,
    "encode_files/speed of steady": 0.6,
    "workers/two over one": 1.8,
    "index/speed": 8.0,
}
"""Least speed of ours over theirs."""

AT_MOST = {
    "memory/of 400 MB": 1.0,
    f"memory/{TIMES_LARGER}x text, of 400 MB": 1.0,
    "scorer/share of steady": 0.15,
}
"""Most of a share."""

NEVER = ("check/contenders with other documents", "index/other bytes")
"""What must be 0, with --quick too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    size = QUICK if options.quick else FULL
    rounds = options.rounds or (1 if options.quick else 5)
    try:
        corpus = prepare(options.cache, options.input, options.tokenizer, size)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="megagrow-bench-") as name:
        work = _begin(corpus, Path(name))
        wrong = _check(work, Path(name) / "check")
        measured = Measured(work, Path(name))
        for number in range(rounds):
            measured.round(reverse=number % 2 == 1)
        measured.once(documents=20_000 if options.quick else 1_000_000, rounds=rounds)
    for each in wrong:
        print(f"NOT THE SAME: {each}")
    ratios = measured.ratios()
    ratios["check/contenders with other documents"] = ratio([float(len(wrong))])
    ratios = {name: _with_target(name, each, quick=options.quick) for name, each in ratios.items()}
    measured.print()
    print_ratios(ratios)
    details = {
        "unit": "MB/s of text of ours over theirs, unless it says otherwise",
        "measured": measured.summary(),
        "wrong": wrong,
        "rounds": rounds,
        "corpus": _describe(corpus, options.input),
        "engine": work.facts["engine"],
        "versions": {
            name: version(name)
            for name in ("gigatoken", "tokenizers", "transformers", "datatrove", "numpy", "orjson")
        },
    }
    return finish("data", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Speed and memory of data preparation.",
        epilog="Without --input, text is made of the installed packages' documentation.",
    )
    parser.add_argument(
        "--input", nargs="+", default=[], metavar="INPUT", help="JSON Lines, plain or compressed"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="PATH",
        help="tokenizer.json, or GPT-2's two files, or their folder (default: one is trained)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, default=CACHE, metavar="DIR",
        help="where text made here, and the input in the peers' formats, is kept (default: "
        "data/benchmark)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds (default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="one round over little text, no targets: does it run?"
    )
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


def _begin(corpus: Corpus, folder: Path) -> Work:
    work = Work(
        corpus=corpus,
        frozen=folder / "frozen",
        facts={},
        cores=tuple(sorted(os.sched_getaffinity(0))),
    )
    done = work.one("_data_ours:fit", {"inputs": corpus.shards, "folder": str(work.frozen)})
    return replace(work, facts=done.result)


def _check(work: Work, folder: Path) -> list[str]:
    """Runs every contender that writes; says where documents differ."""
    corpus = work.corpus
    folder.mkdir()
    ours = folder / "ours"
    job = {"inputs": corpus.shards, "folder": str(ours)}
    buckets = work.one("_data_ours:cold", job).result["buckets"]
    job = {"inputs": [corpus.part], "folder": str(folder / "single")}
    single = work.one("_data_ours:single", job).result["prefix"]
    work.one("_data_peers:preprocess", {"input": corpus.part, "prefix": str(folder / "megatron")})
    datatrove = work.one("_data_peers:datatrove", datatrove_argument(work, folder)).result["prefix"]
    joined = fast_argument(work, [corpus.joined], folder)
    fast = work.one("_data_peers:preprocess_fast", joined).result["prefixes"]
    part = checks.first_rows(ours, buckets, corpus.part_documents)
    compared = {
        "megatron": checks.difference(part, checks.multiset([folder / "megatron"])),
        "datatrove": checks.difference(part, checks.multiset([datatrove])),
        "megatron-fast": checks.difference(
            checks.multiset([ours / name for name in buckets]), checks.multiset(fast)
        ),
    }
    wrong = [f"{name}: {found}" for name, found in compared.items() if found]
    if not checks.same_bytes(single, folder / "megatron"):
        wrong.append("megatron: other bytes than one bucket of ours")
    shutil.rmtree(folder)
    return wrong


def _with_target(name: str, found: Ratio, *, quick: bool) -> Ratio:
    if name in NEVER:
        return replace(found, at_most=0.0)
    if quick:
        return found
    return replace(found, at_least=AT_LEAST.get(name), at_most=AT_MOST.get(name))


def _describe(corpus: Corpus, inputs: Sequence[str]) -> dict[str, Any]:
    return {
        "text": "given" if inputs else "made of installed packages' documentation",
        "shards": len(corpus.shards),
        "documents": corpus.documents,
        "text_mb": round(corpus.text_bytes / 1e6, 1),
        "part_documents": corpus.part_documents,
        "part_mb": round(corpus.part_bytes / 1e6, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
