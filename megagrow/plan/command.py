"""What `pretrain_grow.py CONFIG --plan` prints."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from megagrow.config import RunConfig
from megagrow.data import indexed
from megagrow.errors import DataError
from megagrow.plan.hardware import Hardware, parse_hardware
from megagrow.plan.render import render, to_dict
from megagrow.plan.schedule import make_plan

logger = logging.getLogger(__name__)


def plan_text(
    config: RunConfig,
    world_size: int | None = None,
    *,
    hardware: str | None = None,
    as_json: bool = False,
) -> str:
    """The plan of a run, as text or JSON; reads no data, only its index sizes where it exists.

    Args:
        config: the run.
        world_size: processes; unset: the fewest that suit every stage.
        hardware: `NAME:COUNT` to estimate times for.
        as_json: JSON instead of tables.

    Raises:
        MegagrowError: whatever would stop the run later.
    """
    plan = make_plan(config, world_size)
    chosen = None if hardware is None else _hardware(hardware, config.precision)
    sizes = bucket_sizes(config)
    if as_json:
        return json.dumps(to_dict(plan, hardware=chosen, bucket_sizes=sizes), indent=1)
    return render(plan, hardware=chosen, bucket_sizes=sizes)


def bucket_sizes(config: RunConfig) -> dict[str, int] | None:
    """Training tokens of each bucket from the index headers; None while data is missing."""
    folder = Path(config.data.path)
    sizes: dict[str, int] = {}
    for name, prefixes in config.data.buckets.items():
        paths = [folder / prefix.removesuffix(".idx").removesuffix(".bin") for prefix in prefixes]
        if not all(Path(f"{path}.idx").is_file() for path in paths):
            return None
        try:
            tokens = sum(indexed.inspect(path).tokens for path in paths)
        except DataError as error:
            logger.warning("the data is not ready: %s", error)
            return None
        sizes[name] = int(tokens * (1 - config.data.validation_fraction))
    return sizes


def _hardware(text: str, precision: str) -> Hardware:
    from megagrow.runtime.device import peak_tflops  # imports torch: only where it is asked for

    return parse_hardware(text, precision, peak_tflops)
