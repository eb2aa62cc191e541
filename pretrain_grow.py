"""Trains a language model that grows while it trains, from one YAML file.

python pretrain_grow.py CONFIG.yaml --plan        what the run will do and cost: no GPU, no data
torchrun --nproc-per-node 8 pretrain_grow.py CONFIG.yaml [key.path=value ...]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys

from megagrow.config import RunConfig, load
from megagrow.errors import MegagrowError
from megagrow.runtime import failure

EPILOG = """\
exit codes: 0 complete; 2 an error you can mend; 75 stopped early (signal or wall time) with
everything saved: start the same command again to go on; 130 interrupted for the second time; 1
anything else, such as a lost process.
Under torchrun the code of a worker is torchrun's to report; RUN/status.json says the same.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="the run's YAML file, for example examples/quickstart.yaml")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="changes to the file: stages.0.tokens=1M, model.hidden_size=512",
    )
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|FOLDER",
        help="auto (default): go on from the run's newest checkpoint if it has one; never: begin "
        "anew, refused where checkpoints are; FOLDER: that checkpoint",
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and exit")
    planning = parser.add_argument_group("with --plan")
    planning.add_argument(
        "--world-size", type=_count, metavar="N", help="processes to plan for (default: the fewest)"
    )
    planning.add_argument(
        "--hardware", metavar="GPU:N", help="estimate the time on N of these, such as H100:64"
    )
    planning.add_argument("--json", action="store_true", help="print the plan as JSON")
    found = parser.parse_intermixed_args(arguments)
    for option in ("world_size", "hardware", "json"):
        if getattr(found, option) and not found.plan:
            name = f"--{option.replace('_', '-')}"
            parser.error(f"{name} is about the plan: add --plan. torchrun says how many train.")
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes, 1 or more")
    return int(text)


def main() -> int:
    """Plans or trains; returns the exit code."""
    arguments = parse()
    try:
        config = load(arguments.config, arguments.overrides)
        return plan(config, arguments) if arguments.plan else pretrain(config, arguments.resume)
    except MegagrowError as error:
        return failure.report_early(error)
    except KeyboardInterrupt:  # before training could handle it
        return failure.EXIT_INTERRUPT


def plan(config: RunConfig, arguments: argparse.Namespace) -> int:
    """Prints what the run will do."""
    from megagrow.plan.command import plan_text

    wanted = {"hardware": arguments.hardware, "as_json": arguments.json}
    try:
        print(plan_text(config, arguments.world_size, **wanted), flush=True)
    except BrokenPipeError:  # of `| head`; nothing more can be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def pretrain(config: RunConfig, resume: str) -> int:
    """Joins the processes of the run and trains."""
    from megagrow.runtime import environment

    environment.prepare(  # before torch is asked about CUDA
        os.environ,
        tensor_parallel=any(stage.parallel.tensor > 1 for stage in config.stages),
        deterministic=config.deterministic,
    )
    from megagrow.runtime import device, logging, megatron_core, processes

    logging.configure()  # before megatron-core is imported, which warns
    megatron_core.load()
    if config.deterministic:
        device.make_deterministic()
    from megagrow.train import stop
    from megagrow.train.pretrain import pretrain as train

    gc.freeze()  # what was imported is no garbage: each growth would look through all of it
    processes.start()
    failed = own_error = False
    try:
        code = train(config, resume=resume)
        stop.ignore_signals()
        return code
    except BaseException as error:
        failed, own_error = True, failure.is_own(error)
        return failure.report(error)  # while the processes can still talk
    finally:
        processes.stop(failed=failed, own_error=own_error)


if __name__ == "__main__":
    sys.exit(main())
