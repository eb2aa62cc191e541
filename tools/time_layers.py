"""Time a layer, the embedding and the output layer of a stage's model on this device.

    python tools/time_layers.py examples/quickstart.yaml --output layer_times.json

A pipeline is as fast as its slowest chunk. Without this file, chunks are made equal by counting
FLOPs; with it, by how long a layer and the output layer really take, forward and backward, for one
micro-batch. Run it on the device that will train, with nothing else on it, and set in the YAML

    parallel: {balance: times, layer_times: layer_times.json}

One process times everything with tensor size 1. For a larger one the same times are used, on the
assumption, which has not been measured, that all parts shrink alike. The file serves every stage
with the same layers, micro-batch, precision, recomputation and fusions, whatever its depth; for
others it is refused. It does not have to be of the device that trains: --plan shows what was timed,
and what it gains.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megagrow.config import load
from megagrow.config.stages import find_stage
from megagrow.errors import MegagrowError
from megagrow.runtime import environment
from megagrow.runtime.files import write_atomically


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, or 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="the run's YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="changes to the file"
    )
    parser.add_argument("--stage", metavar="NAME", help="stage to time (default: the last)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("layer_times.json"),
        metavar="FILE",
        help="file to write (default: layer_times.json)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        metavar="N",
        help="how often each part is timed; the median counts (default: 20)",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        config = load(options.config, options.overrides)
        stage = find_stage(config, options.stage)
        environment.prepare(os.environ, tensor_parallel=False, deterministic=config.deterministic)
        from megagrow.runtime import device, logging, megatron_core  # import torch: after that

        logging.configure()
        megatron_core.load()
        from megagrow.pipeline.balancing.timing import time_stage

        if config.deterministic:
            device.make_deterministic()
        print(
            f"stage {stage.name!r}: one process, tensor size 1, micro-batch of "
            f"{stage.batch.micro_size}, {config.precision}, median of {options.rounds} rounds",
            flush=True,
        )
        times = time_stage(config, stage, options.rounds, lambda line: print(line, flush=True))
        write_atomically(options.output, times.to_json() + "\n")
    except (MegagrowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: times on {times.device}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
