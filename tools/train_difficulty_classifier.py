r"""Train a classifier of text difficulty, and distil it into a linear scorer on token ids.

    python tools/train_difficulty_classifier.py shards/*.jsonl.zst --silver --from-scratch \
        --lm-tokenizer tokenizer.json --output scorers/school

With --from-scratch nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from megagrow.config.quantity import parse_tokens
from megagrow.difficulty.classifier import Settings
from megagrow.difficulty.labels import SCHOOL_CUTS, SCHOOL_LEVELS
from megagrow.difficulty.progress import Progress
from megagrow.difficulty.training import train
from megagrow.difficulty.training_outcome import TrainingOutcome
from megagrow.difficulty.training_plan import TrainingPlan
from megagrow.difficulty.training_report import confusion_table, table, write
from megagrow.errors import ConfigError, MegagrowError

EPILOG = """\
labels, one of:
  --label-field FIELD   of each row: the name of a level (text), or a number named in --levels
  --silver              the median of three readability grades (NLTK: Punkt sentences, sonority
                        syllables), cut at 12 and 16 years of schooling, or as --cuts or
                        --quantiles say. A proxy: it sees the form of a text, not its content

models, one of:
  --init DIR_OR_ID      a pretrained model in Hugging Face's layout, with safetensors
  --from-scratch        a small DistilBERT with its own WordPiece vocabulary; no download

what is done: a seeded sample is taken, without duplicates; a part of it is held out, chosen by
each text's hash; the classifier is trained; it labels the sample, and a linear model on the ids
of --lm-tokenizer learns its expected levels. Held-out figures of both are reported.

written to the output folder:
  distilbert/   the classifier; score with  tools/bucket_by_difficulty.py --scorer OUTPUT/distilbert
  linear/       the student, far faster;                    --scorer OUTPUT/linear
  report.json report.png   accuracy, confusion, calibration, agreement; report.json is last

examples:
  # school levels by readability, small model, offline, minutes on a laptop
  python tools/train_difficulty_classifier.py shards/ --silver --from-scratch --documents 4K \\
      --max-length 128 --lm-tokenizer tokenizer.json --output scorers/school
  # your own labels, pretrained DistilBERT; a GPU is used where there is one
  python tools/train_difficulty_classifier.py labelled.jsonl --label-field level \\
      --levels high-school,undergraduate,graduate --init distilbert/distilbert-base-uncased \\
      --lm-tokenizer tokenizer.json --output scorers/cgls
  # five levels of equal size, and an int8 model for CPUs
  python tools/train_difficulty_classifier.py shards/ --silver --quantiles --levels 1,2,3,4,5 \\
      --init models/distilbert --export-onnx --output scorers/five

exit codes: 0 done; 1 the output cannot be written; 2 input or arguments that cannot be used, or
training diverged; 130 interrupted.
"""

_FROM_SCRATCH_RATE = 5e-4
_PRETRAINED_RATE = 5e-5


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train a classifier of text difficulty, and distil it into a linear scorer.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help=".jsonl, .zst, .gz or .parquet; files, folders, quoted globs or @LIST",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run left in it"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_labels(parser)
    _add_model(parser)
    _add_student(parser)
    return parser


def _add_labels(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("documents and labels")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--label-field", metavar="FIELD", help="field or column of the label")
    source.add_argument("--silver", action="store_true", help="labels from readability grades")
    group.add_argument(
        "--levels", type=_list(str), default=SCHOOL_LEVELS, metavar="NAME,...",
        help=f"names, easiest first (default: {','.join(SCHOOL_LEVELS)})",
    )  # fmt: skip
    cut = group.add_mutually_exclusive_group()
    cut.add_argument(
        "--cuts", type=_list(float), default=SCHOOL_CUTS, metavar="GRADE,...",
        help="grades between silver levels (default: 12,16)",
    )  # fmt: skip
    cut.add_argument(
        "--quantiles", action="store_true", help="silver levels with as many documents each"
    )
    group.add_argument(
        "--text-key", default="text", metavar="FIELD", help="field of the text (default: text)"
    )
    group.add_argument(
        "--documents", type=_count, default=20_000, metavar="N",
        help="documents to take, such as 500 or 20K (default: 20K)",
    )  # fmt: skip
    group.add_argument(
        "--held-out", type=float, default=0.1, metavar="SHARE",
        help="share that is not trained on (default: 0.1)",
    )  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("classifier")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--init", metavar="DIR_OR_ID", help="pretrained model: folder or hub id")
    source.add_argument("--from-scratch", action="store_true", help="a small new DistilBERT")
    for name, default, words in (
        ("--layers", 2, "layers, from scratch"),
        ("--hidden-size", 128, "width, from scratch; a multiple of 32"),
        ("--vocab-size", 8192, "WordPiece ids, from scratch"),
        ("--epochs", 2, "passes over the documents"),
        ("--max-length", 512, "ids of a text that are read"),
        ("--batch-size", 16, "texts in a batch"),
        ("--seed", 1, "of the sample, the weights and the order"),
    ):
        group.add_argument(
            name, type=int, default=default, metavar="N", help=f"{words} (default: {default})"
        )
    group.add_argument(
        "--learning-rate", type=float, metavar="RATE",
        help=f"default: {_PRETRAINED_RATE:g} with --init, {_FROM_SCRATCH_RATE:g} from scratch",
    )  # fmt: skip
    group.add_argument(
        "--device", default="auto", metavar="DEVICE",
        help="cpu, cuda, ... (default: auto, CUDA where there is one)",
    )  # fmt: skip
    group.add_argument(
        "--export-onnx", action="store_true", help="write distilbert/model.int8.onnx, too"
    )


def _add_student(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("linear student")
    group.add_argument(
        "--lm-tokenizer", type=Path, metavar="PATH",
        help="tokenizer of the language model; without it there is no student",
    )  # fmt: skip
    group.add_argument(
        "--max-tokens", type=int, metavar="N",
        help="ids of a document that the student reads (default: as --max-length)",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code that its help lists."""
    options = build_parser().parse_args(arguments)
    plan = _plan(options)
    progress = Progress(quiet=options.quiet)
    try:
        outcome = train(plan, progress)
        write(plan, outcome)
    except MegagrowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {options.output} cannot be written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: run it again, with --overwrite if it had begun to write",
              file=sys.stderr)  # fmt: skip
        return 130
    _show(outcome)
    print(f"\n{plan.output}: distilbert/, {'linear/, ' if outcome.student else ''}"
          "report.json and report.png")  # fmt: skip
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _plan(options: argparse.Namespace) -> TrainingPlan:
    rate = _FROM_SCRATCH_RATE if options.from_scratch else _PRETRAINED_RATE
    return TrainingPlan(
        inputs=tuple(options.inputs),
        output=options.output,
        levels=tuple(options.levels),
        text_key=options.text_key,
        label_key=options.label_field,
        cuts=None if options.quantiles else tuple(options.cuts),
        init=options.init,
        layers=options.layers,
        hidden_size=options.hidden_size,
        vocab_size=options.vocab_size,
        settings=Settings(
            epochs=options.epochs,
            max_length=options.max_length,
            batch_size=options.batch_size,
            learning_rate=rate if options.learning_rate is None else options.learning_rate,
            seed=options.seed,
            device=options.device,
        ),
        documents=options.documents,
        held_out=options.held_out,
        lm_tokenizer=options.lm_tokenizer,
        max_tokens=options.max_tokens,
        export_onnx=options.export_onnx,
        overwrite=options.overwrite,
    )


def _show(outcome: TrainingOutcome) -> None:
    console = Console()
    console.print(table(outcome))
    title = "Documents by label (row) and by the classifier (column)"
    console.print(confusion_table(title, outcome.levels, outcome.evaluation.confusion))
    if outcome.student is not None:
        title = "Documents by the classifier (row) and by the linear student (column)"
        console.print(confusion_table(title, outcome.levels, outcome.student.agreement.confusion))


def _list(kind: Callable[[str], object]) -> Callable[[str], tuple[object, ...]]:
    def parse(text: str) -> tuple[object, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _count(text: str) -> int:
    try:
        return parse_tokens(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
