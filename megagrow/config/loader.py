"""A run's YAML file -> `RunConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megagrow.config import overrides as dotted
from megagrow.config.build import build
from megagrow.config.checks import check
from megagrow.config.schema import RunConfig
from megagrow.config.source import Source, read

INHERITED = ("parallel", "batch", "learning_rate")
"""Sections a stage takes from the run, key by key, unless it sets its own."""


def load(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Reads, overrides, completes and checks a run configuration.

    Args:
        path: YAML file.
        overrides: `key.path=value` texts, applied in order.

    Raises:
        ConfigError: anything wrong with the file; names file, line, key and how to mend it.
    """
    return from_source(dotted.apply(read(path), overrides))


def from_source(source: Source) -> RunConfig:
    """A checked `RunConfig` from parsed YAML."""
    config = build(RunConfig, _complete(source), source)
    check(config, source)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain data (JSON types) that holds every resolved value."""
    plain = dataclasses.asdict(config)
    return plain


def _complete(source: Source) -> dict[str, Any]:
    """Fills what depends on other keys: names, inherited sections, transitions."""
    data = dict(source.data)
    name = data.setdefault("name", Path(source.file).stem)
    data.setdefault("output", f"runs/{name}")
    stages = data.get("stages")
    if not isinstance(stages, list) or not stages:
        raise source.error(("stages",), "expected a list with at least one stage")
    completed: list[Any] = []
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict):
            raise source.error(("stages", index), f"expected a mapping, got {stage!r}")
        completed.append(_complete_stage(data, stage, completed[-1] if completed else None, source, index))
    data["stages"] = completed
    return data


def _complete_stage(
    data: dict[str, Any], stage: dict[str, Any], previous: Any, source: Source, index: int
) -> dict[str, Any]:
    stage = {"name": f"stage{index}", **stage}
    for section in INHERITED:
        base, own = data.get(section, {}), stage.get(section, {})
        if not isinstance(own, dict):
            raise source.error(("stages", index, section), f"expected a mapping, got {own!r}")
        if isinstance(base, dict):
            stage[section] = {**base, **own}
    own = stage.get("transition")
    if previous is None:
        if own is not None:
            raise source.error(("stages", index, "transition"), "the first stage has nothing before it; remove the key")
        return stage
    grows = stage.get("layers") != previous.get("layers")
    defaults = {
        "operator": "stack" if grows else "none",
        "optimizer": "reset" if grows else "copy",
        "learning_rate": "restart" if grows else "continue",
    }
    if own is not None and not isinstance(own, dict):
        raise source.error(("stages", index, "transition"), f"expected a mapping, got {own!r}")
    stage["transition"] = {**defaults, **(own or {})}
    return stage
