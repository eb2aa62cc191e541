"""Grow a model on disk: a checkpoint of ours, or a Hugging Face folder, into one of its kind.

python tools/grow_checkpoint.py MODEL --layers 48 --operator overlap --output DIR
python tools/grow_checkpoint.py MODEL --layers 48 --operator overlap --dry-run
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from megagrow.config.checks import check_model
from megagrow.config.layer_scaling import check_layer_scaling
from megagrow.config.schema import (
    BatchConfig,
    LearningRateConfig,
    LesaConfig,
    ModelConfig,
    ParallelConfig,
    StageConfig,
    TransitionConfig,
    WidthConfig,
)
from megagrow.config.source import Source
from megagrow.config.transitions import refusals
from megagrow.conversion.safetensors_file import torch_dtype
from megagrow.errors import MegagrowError
from megagrow.growth import depth
from megagrow.growth.lesa.settings import PRESETS, lesa_settings
from megagrow.growth.on_disk import StoredModel, grow_model, open_model
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.shape_checks import check_layers
from megagrow.growth.tables import with_grown_table
from megagrow.model.flops import parameters
from megagrow.model.shape import model_shape
from megagrow.model.tensors import Role
from megagrow.plan import text
from megagrow.shards.live_line import LiveLine
from megagrow.units import format_count

if TYPE_CHECKING:  # copies of layers need no torch, which is slow to start
    from megagrow.growth.width.interface import WidthOperator

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
WIDTHS: tuple[str, ...] = get_args(get_type_hints(WidthConfig)["operator"])

_DEPTH = tuple(name for name in depth.OPERATORS if name not in ("none", "first", "lesa", "learned"))
_READ_BY = {
    "pattern": ("pattern",),
    "insert": ("random",),
    "positions": ("random",),
    "zero": _DEPTH,
    "noise": _DEPTH,
    "preset": ("lesa",),
    "epochs": ("lesa",),
    "norms": ("lesa",),
    "first_pair": ("lesa",),
}
"""Options that only some operators read."""

EPILOG = """\
operators in depth (what each does: docs/operators.md):
  stack, interleave        the whole model, or every layer, several times
  append, middle, overlap  the top, the middle, or two overlapping copies (SOLAR)
  expand                   copies whose outputs are zero, evenly spread (LLaMA-Pro)
  pattern                  as written: --pattern 12-345x7-6
  random                   drawn layers at --insert, or at --positions
  first                    only the first layers (Inheritune)
  lesa                     new layers between the last pairs of neighbours, predicted from them

in width, after the depth (--width, with the new sizes): split, zero, random, hyperclone, double,
rms_preserving. hyperclone and double keep the model's function.

  python tools/grow_checkpoint.py Llama-3-8B --layers 48 --operator overlap --output solar
  python tools/grow_checkpoint.py runs/small --layers 24 --output grown
  python tools/grow_checkpoint.py gpt2 --width hyperclone --hidden-size 1536 --heads 24 \\
      --ffn-hidden-size 6144 --output gpt2-wide

A Hugging Face folder gives one with config.json and the tokenizer's files; a checkpoint gives one
to begin a run from (initialise_from: DIR), with its `model:` section in model.yaml, and no moments.
It works tensor by tensor: in memory is at most one tensor, or one output file of 2 GB; lesa takes
one kind of matrix of all layers, twice.

exit codes: 0 done; 2 arguments or a model that cannot be used, and nothing was written; 130
interrupted, and nothing was written.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Grow a model on disk in depth, in width, or both.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="MODEL", help="a Hugging Face folder, a run or a checkpoint")
    add("--output", type=Path, metavar="DIR", help="folder to write")
    add("--dry-run", action="store_true", help="print what would be done; write nothing")
    add("--layers", type=int, metavar="N", help="new depth (default: as it is)")
    # What `learned` learns from is a run's data.
    names = [name for name in depth.OPERATORS if name not in ("none", "learned")]
    add("--operator", choices=names, default="stack", help="default: stack")
    add("--pattern", metavar="PATTERN", help="of the operator pattern")
    add("--insert", choices=("top", "middle", "bottom"), default="top", help="of random")
    add("--positions", type=int, nargs="+", metavar="N", help="of random: places in the new model")
    add("--zero", action="store_true", help="new layers begin with outputs of zero")
    add("--noise", type=float, default=0.0, metavar="SHARE", help="(1 - a) W + a e (default: 0)")
    add("--preset", choices=sorted(PRESETS), default="notebook", help="of lesa (default: notebook)")
    add("--epochs", type=int, metavar="N", help="of lesa, instead of the preset's")
    add(
        "--first-pair",
        type=int,
        metavar="N",
        help="of lesa: lower layer of the first pair that gets "
        "a layer in between (default: the last pairs)",
    )
    add("--norms", choices=("nearest", "first"), default="nearest", help="norms of lesa's layers")
    add("--width", choices=sorted(WIDTHS), help="operator in width")
    add("--shrink", choices=("first",), help="keep the first heads and channels of layers that "
        "get narrower, as layer-wise scaling can ask for in a new depth")  # fmt: skip
    add("--hidden-size", type=int, metavar="N", help="new hidden size")
    add("--heads", type=int, metavar="N", help="new number of query heads")
    add("--groups", type=int, metavar="N", help="new number of key/value heads")
    add("--ffn-hidden-size", type=int, metavar="N", help="new FFN width")
    add("--seed", type=int, default=1234, help="of what is drawn (default: 1234)")
    add("--dtype", choices=sorted(DTYPES), help="dtype of the weights (default: as they are)")
    add("--no-verify", action="store_true", help="do not check a checkpoint's checksums first")
    add("--quiet", action="store_true", help="show no progress")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code that its help lists."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.output is None and not options.dry_run:
        parser.error("name the folder to write with --output, or look first with --dry-run")
    if options.layers is None and options.width is None:
        parser.error("say what to grow: --layers, --width, or both")
    if options.shrink and options.width is None:
        parser.error("--shrink goes with an operator in width: add --width")
    for name, operators in _READ_BY.items():
        if getattr(options, name) != parser.get_default(name) and options.operator not in operators:
            parser.error(
                f"--{name.replace('_', '-')} has no effect with {options.operator}; leave it out"
            )
    line = LiveLine(quiet=options.quiet)
    line.begin()
    try:
        _grow(options, line)
    except MegagrowError as error:
        line.end()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        line.end()
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def _grow(options: argparse.Namespace, line: LiveLine) -> None:
    old = open_model(options.source, verify=not options.no_verify and not options.dry_run)
    model = _model(options, old)
    stage = _transition(options, old, model)
    assert stage.transition is not None
    plan = depth.plan_growth(stage.transition, old.layers, stage.layers)
    model = with_grown_table(model, plan)
    new = model_shape(model, plan.new_layers)
    check_layers(plan, stage.transition.width, model_shape(old.model, old.layers), new)
    width = _width(stage.transition.width, options, model)
    _say(old, plan, model)
    if options.dry_run:
        return
    with tempfile.TemporaryDirectory(dir=_existing(options.output), prefix=".lesa-") as folder:
        lesa = None
        if plan.predicted:
            from megagrow.growth.lesa.layers import PredictedLayers

            lesa = PredictedLayers(
                old.tensors,
                old.shape,
                plan.left_of,
                lesa_settings(stage.transition.lesa, options.seed),
                Path(folder),
                _told(line),
            )
        grow_model(
            old,
            options.output,
            plan,
            model,
            width=width,
            predicted=lesa or (lambda key: {}),
            seed=options.seed,
            dtype=None if options.dtype is None else torch_dtype(DTYPES[options.dtype]),
            progress=lambda done, total: line.show(lambda: f"tensor {done} of {total}"),
        )
    line.end()
    for kind, report in (lesa.reports if lesa else {}).items():
        loss = "none" if report.final_loss is None else f"{report.final_loss:.3g}"
        ratios = ", ".join(f"{ratio:.2f}" for ratio in report.norm_ratios)
        print(f"{kind.value}: loss {loss}, norms over their neighbours' {ratios}")
    print(f"wrote {options.output}")


def _existing(output: Path) -> Path:
    """The nearest folder above that there is, which is on the same disk."""
    return next(folder for folder in output.resolve().parents if folder.is_dir())


def _told(line: LiveLine) -> Callable[[Role, str, float], None]:
    return lambda kind, phase, share: line.show(lambda: f"{kind.value}: {phase} {share:.0%}")


def _transition(options: argparse.Namespace, old: StoredModel, model: ModelConfig) -> StageConfig:
    """The growth as a stage of a run, held against the same rules."""
    layers = old.layers if options.layers is None else options.layers
    sizes = WidthConfig(operator=options.width, shrink=options.shrink) if options.width else None
    deepens = options.layers is not None and options.layers != old.layers
    lesa = LesaConfig(
        preset=options.preset,
        epochs=options.epochs,
        norms=options.norms,
        first_pair=options.first_pair,
    )
    transition = TransitionConfig(
        operator=options.operator if deepens or options.layers is not None else "none",
        pattern=options.pattern,
        insert=options.insert,
        positions=None if options.positions is None else tuple(options.positions),
        lesa=lesa if options.operator == "lesa" and deepens else None,
        width=sizes,
        new_output="zero" if options.zero else "copy",
        noise=options.noise,
        optimizer="reset",
        learning_rate="restart",
    )
    before, after = (
        StageConfig(
            name=name,
            layers=depth_of,
            tokens=1,
            mixture={},
            model=each,
            parallel=ParallelConfig(),
            batch=BatchConfig(global_size=1, micro_size=1),
            learning_rate=LearningRateConfig(peak=1.0),
        )
        for name, depth_of, each in (("old", old.layers, old.model), ("new", layers, model))
    )
    if model != old.model and sizes is None:
        raise MegagrowError("new sizes need an operator in width: add --width")
    source = Source(file=str(old.folder), data={}, lines={})
    check_model(model, source, ("model",))
    check_layer_scaling(model, source, ("model",), old.layers)
    for key, message in refusals(before, after, transition):
        raise MegagrowError(f"{'.'.join(map(str, key))}: {message}")
    return replace(after, transition=transition)


def _model(options: argparse.Namespace, old: StoredModel) -> ModelConfig:
    """The new widths; what a new size would change unasked, such as a head's, stays as it is."""
    sizes = {
        "hidden_size": options.hidden_size,
        "num_attention_heads": options.heads,
        "num_query_groups": options.groups,
        "ffn_hidden_size": options.ffn_hidden_size,
    }
    asked: dict[str, Any] = {key: size for key, size in sizes.items() if size is not None}
    if not asked:
        return old.model
    layer = old.shape.layers[0]
    kept: dict[str, Any] = {"kv_channels": layer.kv_channels}
    scaling = old.model.layer_scaling
    if scaling is None:
        apart = layer.num_query_groups != layer.num_attention_heads
        # Where every head has keys and values of its own, new ones have too.
        kept["num_query_groups"] = (
            layer.num_query_groups if apart or options.heads is None else options.heads
        )
        kept["ffn_hidden_size"] = layer.ffn_hidden_size
    elif scaling.table is not None:
        for key in asked:
            if getattr(scaling.table, key, None) is not None:
                raise MegagrowError(
                    f"{key} of this model stands in a table, layer by layer; leave the size out, "
                    "or begin a run with it (initialise_from) whose next stage has another table"
                )
    return replace(old.model, **{**kept, **asked})


def _width(
    width: WidthConfig | None, options: argparse.Namespace, model: ModelConfig
) -> WidthOperator | None:
    if width is None:
        return None
    from megagrow.growth.seeds import draw_seed
    from megagrow.growth.width.draws import Draws
    from megagrow.growth.width.operator import configured

    return configured(width, Draws(seed=draw_seed(options.seed, 1), init=model.init))


def _say(old: StoredModel, plan: GrowthPlan, model: ModelConfig) -> None:
    before, after = old.shape, model_shape(model, plan.new_layers)
    total = format_count(parameters(after).total)
    print(f"{old.folder}: {old.family or 'checkpoint'}, {format_count(parameters(before).total)}")
    print(f"layers {plan.old_layers} -> {plan.new_layers} ({plan.operator}), {total} parameters")
    if plan.operator != "none":
        print(f"from old layers: {text.layer_map(plan.layer_map)}")
        print(f"connection rate Rc: {plan.connection_rate:.1%}")
        added = sorted(plan.added)
        print(f"new: {', '.join(map(str, added)) or 'none'}{' (zero)' if plan.zeroed else ''}")
    if text.widths(before) != text.widths(after):
        print(f"widths: {text.widths(before)} -> {text.widths(after)}")


if __name__ == "__main__":
    sys.exit(main())
