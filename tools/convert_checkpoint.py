"""Turn megagrow checkpoints into Hugging Face folders, and Hugging Face models into checkpoints.

python tools/convert_checkpoint.py to-hf runs/NAME --output DIR --tokenizer tokenizer.json
python tools/convert_checkpoint.py from-hf DIR --output checkpoints/NAME
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megagrow.config.quantity import parse_bytes
from megagrow.conversion.exporting import to_hugging_face
from megagrow.conversion.families import FAMILIES
from megagrow.conversion.importing import from_hugging_face
from megagrow.conversion.megagrow_config import FAMILY
from megagrow.conversion.safetensors_file import torch_dtype
from megagrow.errors import ConfigError, MegagrowError
from megagrow.shards.live_line import LiveLine
from megagrow.units import counted, format_count

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

EPILOG = """\
families: gpt2, llama (1 to 3.3), mistral, qwen2 (and 2.5), qwen3; not their mixtures of experts;
and megagrow, our own, for what the others cannot hold.

to-hf takes a run (its newest checkpoint) or one checkpoint, saved under any parallel layout, and
writes config.json and safetensors that transformers, vLLM and lm-evaluation-harness load:
  python tools/convert_checkpoint.py to-hf runs/quickstart --output quickstart-hf \\
      --tokenizer data/quickstart_text/tokenizer.json
Rows that pad the vocabulary are cut off. Models of the style llama become a llama, with qkv_bias a
qwen2, with qk_norm a qwen3; --family mistral is a llama by another name. With both, or with layers
of different sizes (layer_scaling), they become a megagrow: a folder with its own two Python files,
which transformers loads with trust_remote_code=True.

from-hf takes a folder with config.json and *.safetensors (never pickles, *.bin) and writes a
checkpoint to begin a run from (initialise_from: checkpoints/NAME), with the `model:` section of its
YAML file in model.yaml:
  hf download Qwen/Qwen3-0.6B --local-dir qwen3
  python tools/convert_checkpoint.py from-hf qwen3 --output checkpoints/qwen3 --seq-length 4096
Rows that pad the vocabulary are zeros. Python files in the folder are not run.

Both work tensor by tensor: what is in memory is at most one output file (--shard-size), or one
tensor; no GPU is needed, and nothing is fetched.

Read only megagrow checkpoints that you trust: their index is a pickle.

exit codes: 0 done; 2 arguments or a folder that cannot be used, and nothing was written; 130
interrupted, and nothing was written.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Convert checkpoints to and from Hugging Face folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="to-hf|from-hf")
    add = _command(
        commands, "to-hf", "write a checkpoint as a Hugging Face folder", "RUN_OR_CHECKPOINT",
        "a run's folder, or one of its checkpoints", ("bf16", "fp16", "fp32"),
    )  # fmt: skip
    add.add_argument(
        "--family", choices=FAMILIES, help="what to call it (default: the plainest that fits)"
    )
    add.add_argument(
        "--tokenizer", type=Path, metavar="PATH",
        help="a tokenizer.json, or a folder with tokenizer files, to copy; it names special tokens",
    )  # fmt: skip
    for name in ("bos", "eos", "pad"):
        add.add_argument(
            f"--{name}-token-id", type=int, metavar="N",
            help=f"{name} token in config.json (default: the tokenizer's, or null)",
        )  # fmt: skip
    add.add_argument(
        "--shard-size", type=_bytes, default=5 * 1000**3, metavar="SIZE",
        help="largest file, such as 2GB (default: 5GB)",
    )  # fmt: skip
    add.add_argument(
        "--no-verify", action="store_true",
        help="do not hold the checkpoint against its checksums first, which reads all of it",
    )  # fmt: skip
    add = _command(
        commands, "from-hf", "write a Hugging Face model as a checkpoint", "DIR",
        "a folder with config.json and safetensors", ("bf16", "fp32"),
    )  # fmt: skip
    add.add_argument(
        "--seq-length", type=_positive, metavar="N",
        help="tokens in a training sequence (default: as many as the model has positions)",
    )  # fmt: skip
    add.add_argument(
        "--vocab-padding", type=_positive, default=128, metavar="N",
        help="the embedding gets this multiple of rows; 1: no padding (default: 128)",
    )  # fmt: skip
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_: str,
    metavar: str,
    what: str,
    dtypes: Sequence[str],
) -> argparse.ArgumentParser:
    """A subcommand with the arguments that both have."""
    add = commands.add_parser(
        name, help=help_, description=help_[0].upper() + help_[1:] + ".", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add.add_argument("source", type=Path, metavar=metavar, help=what)
    add.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add.add_argument("--dtype", choices=dtypes, help="dtype of the weights (default: as they are)")
    add.add_argument("--quiet", action="store_true", help="show no progress")
    return add


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code that its help lists."""
    options = build_parser().parse_args(arguments)
    line = LiveLine(quiet=options.quiet)
    line.begin()
    try:
        if options.command == "to-hf":
            _to_hugging_face(options, line)
        else:
            _from_hugging_face(options, line)
    except MegagrowError as error:
        line.end()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        line.end()
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def _to_hugging_face(options: argparse.Namespace, line: LiveLine) -> None:
    given = {f"{name}_token_id": getattr(options, f"{name}_token_id") for name in _SPECIAL}
    if not options.no_verify:
        line.say("checking the checkpoint's files")
    done = to_hugging_face(
        options.source,
        options.output,
        dtype=_dtype(options),
        family=options.family,
        tokenizer=options.tokenizer,
        token_ids={key: value for key, value in given.items() if value is not None},
        shard_bytes=options.shard_size,
        verify=not options.no_verify,
        progress=_show(line),
    )
    line.end()
    print(
        f"{options.output}: {done.family}, {format_count(done.parameters)} parameters in "
        f"{counted(done.tensors, 'tensor')}, from {done.checkpoint}"
    )
    if done.family == FAMILY:
        print("its code lies beside the weights: load it with trust_remote_code=True")
    print(f"tokenizer: {', '.join(done.tokenizer_files) or 'none; give one with --tokenizer'}")
    if done.token_ids["eos_token_id"] is None:
        print("no end-of-sequence token is named: generation will not stop (--eos-token-id)")


def _from_hugging_face(options: argparse.Namespace, line: LiveLine) -> None:
    done = from_hugging_face(
        options.source,
        options.output,
        dtype=_dtype(options),
        seq_length=options.seq_length,
        vocab_padding=options.vocab_padding,
        progress=_show(line),
    )
    line.end()
    print(
        f"{options.output}: {done.family}, {format_count(done.parameters)} parameters, "
        f"{counted(done.layers, 'layer')}; the section below is in model.yaml there"
    )
    if done.padding:
        print(f"the vocabulary is padded with {counted(done.padding, 'row')} of zeros")
    print(f"\n{done.text}", end="")


_SPECIAL = ("bos", "eos", "pad")


def _show(line: LiveLine) -> Callable[[int, int], None]:
    return lambda done, total: line.show(lambda: f"tensor {done} of {total}")


def _dtype(options: argparse.Namespace) -> torch.dtype | None:
    return None if options.dtype is None else torch_dtype(DTYPES[options.dtype])


def _bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
