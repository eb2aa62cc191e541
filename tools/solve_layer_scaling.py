r"""Find the multipliers of layer-wise scaling that meet a budget.

    python tools/solve_layer_scaling.py examples/lws/framed_18l.yaml --free ffn.last \
        --like examples/lws/baseline_18l.yaml

Two models compare fairly when they are of one size, or cost the same to train on a token. Sizes of
layers are rounded to multiples, so the multiplier that gives a size has to be looked for. This
moves the free endpoints of `model.layer_scaling` until parameters (and FLOPs per token) are within
0.5% of the budget, with two decimals where these are enough, and prints the section to paste, the
totals and every layer. It changes no file.

Endpoints: ffn.first, ffn.last, qkv.first, qkv.last; of a crown also ffn.middle, qkv.middle;
ffn.ends and qkv.ends move first and last to one value. One budget determines one endpoint; with
--flops too there may be one of ffn and one of qkv:

    python tools/solve_layer_scaling.py examples/lws/crown_18l.yaml --free ffn.middle,qkv.middle \
        --like examples/lws/baseline_18l.yaml --flops

Variant, depth, the other multipliers and the multiples are those of the file, or of overrides:

    python tools/solve_layer_scaling.py run.yaml stages.0.layers=24 \
        'model.layer_scaling={variant: reverse, ffn_multipliers: [4, 1]}' \
        --free ffn.last --parameters 350M --embeddings
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from megagrow.config import ParallelConfig, RunConfig, StageConfig, load
from megagrow.config.quantity import parse_tokens
from megagrow.config.sections import to_yaml, without_defaults
from megagrow.config.stages import find_stage
from megagrow.errors import ConfigError, LayoutError, MegagrowError
from megagrow.plan.layer_scaling_solver import (
    TOLERANCE,
    Budget,
    Solution,
    advice,
    cost,
    solve,
)
from megagrow.plan.layer_table import layer_tables
from megagrow.plan.render import WIDTH
from megagrow.plan.schedule import make_plan
from megagrow.plan.world import check_shapes

EPILOG = """\
exit codes: 0 met; 1 not met: the nearest is printed, and what would help; 2 arguments or a file
that cannot be used.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="a run's YAML file, with layer_scaling")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="changes to the file"
    )
    parser.add_argument("--stage", metavar="NAME", help="stage to solve for (default: the last)")
    parser.add_argument(
        "--free", required=True, metavar="ENDPOINT[,ENDPOINT]", help="what to move: ffn.last"
    )
    parser.add_argument("--parameters", metavar="N", help="budget of parameters, such as 143M")
    parser.add_argument(
        "--like", metavar="YAML[:STAGE]", help="another run whose parameters are the budget"
    )
    parser.add_argument(
        "--embeddings", action="store_true",
        help="the budget includes embeddings and output layer (default: neither)",
    )  # fmt: skip
    parser.add_argument(
        "--flops", nargs="?", const="like", metavar="N",
        help="a budget of training FLOPs per token as well, such as 980M; without N: --like's",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code that its help lists."""
    parser = build_parser()
    options = parser.parse_intermixed_args(arguments)
    if (options.parameters is None) == (options.like is None):
        parser.error("give one budget: --parameters N or --like YAML")
    if options.flops == "like" and options.like is None:
        parser.error("--flops without a number takes that of --like; give either")
    try:
        config = load(options.config, options.overrides)
        stage = find_stage(config, options.stage)
        budget = _budget(options)
        solution = solve(
            stage.model,
            stage.layers,
            budget,
            [name.strip() for name in options.free.split(",") if name.strip()],
        )
        _show(config, stage, budget, solution)
        if not solution.meets:
            help_ = advice(stage.model, stage.layers, budget, solution)
            print(
                f"not met: this is the nearest, and more than {TOLERANCE:.1%} away; {help_}",
                file=sys.stderr,
            )
            return 1
    except MegagrowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _budget(options: argparse.Namespace) -> Budget:
    if options.like is None:
        weights, of_like = _count("--parameters", options.parameters), None
    else:
        file, colon, name = options.like.rpartition(":")
        if not colon or Path(options.like).exists():
            file, name = options.like, None
        other = find_stage(load(file), name)
        weights, of_like = cost(other.model, other.layers, options.embeddings)
    flops = None
    if options.flops is not None:
        flops = of_like if options.flops == "like" else _count("--flops", options.flops)
    return Budget(parameters=weights, embeddings=options.embeddings, flops=flops)


def _count(option: str, text: str) -> int:
    try:
        return parse_tokens(text)
    except ConfigError:
        hint = "write a whole number, such as 143M or 1.1B"
        raise ConfigError(f"{option}: {text!r} is no number; {hint}") from None


def _show(config: RunConfig, stage: StageConfig, budget: Budget, solution: Solution) -> None:
    scaling = solution.model.layer_scaling
    assert scaling is not None
    print(to_yaml({"layer_scaling": without_defaults(scaling)}))
    what = "" if budget.embeddings else ", without embeddings and output layer"
    print(
        f"parameters: {solution.parameters:,}, {solution.parameter_error:+.2%} of the budget "
        f"{budget.parameters:,}{what}"
    )
    if solution.flops_error is None:
        print(f"FLOPs per token: {solution.flops:,}")
    else:
        print(
            f"FLOPs per token: {solution.flops:,}, {solution.flops_error:+.2%} of the budget "
            f"{budget.flops:,}"
        )
    # Of the stage alone: how a run grows into it is for --plan of the file to judge.
    solved = replace(stage, model=solution.model, transition=None, trainable="all")
    try:
        check_shapes(replace(config, stages=(solved,)))
    except LayoutError as error:
        print(f"note: {error}")
    alone = replace(config, stages=(replace(solved, parallel=ParallelConfig()),))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False)
    for table in layer_tables(make_plan(alone)):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    print()
    print("\n".join(line.rstrip() for line in console.file.getvalue().splitlines()))


if __name__ == "__main__":
    sys.exit(main())
