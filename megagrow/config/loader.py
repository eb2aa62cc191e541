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
from megagrow.config.source import KeyPath, Source, read

INHERITED = ("model", "parallel", "batch", "learning_rate")
"""Sections a stage takes from the run, key by key, unless it sets its own. A stage that continues
the learning-rate schedule takes that from the stage before it."""


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
    completed = _complete(source)
    config = build(RunConfig, completed.data, completed)
    check(config, completed)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain data (JSON types) that holds every resolved value; loaded again, it is `config`."""
    plain = _plain(dataclasses.asdict(config))
    assert isinstance(plain, dict)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _complete(source: Source) -> Source:
    """Fills what depends on other keys: names, inherited sections, transitions."""
    data = dict(source.data)
    name = data.setdefault("name", Path(source.file).stem)
    data.setdefault("output", f"runs/{name}")
    data.setdefault("parallel", {})
    stages = data.get("stages")
    if not isinstance(stages, list) or not stages:
        raise source.error(("stages",), "expected a list with at least one stage")
    completed: list[dict[str, Any]] = []
    inherited: dict[KeyPath, KeyPath] = {}
    for index, stage in enumerate(stages):
        path: KeyPath = ("stages", index)
        if not isinstance(stage, dict):
            raise source.error(path, f"expected a mapping, got {stage!r}")
        previous = completed[-1] if completed else None
        transition = _transition(stage, previous, data, source, path)
        stage = {"name": f"stage{index}", **stage}
        if transition is not None:
            stage["transition"] = transition
        for section in INHERITED:
            goes_on = section == "learning_rate" and (
                (transition or {}).get(section, "restart") != "restart"
            )
            base = previous if goes_on and previous else data
            base_path: KeyPath = ("stages", index - 1, section) if goes_on else (section,)
            inherited |= _inherit(stage, base.get(section), base_path, source, (*path, section))
        completed.append(stage)
    data["stages"] = completed
    return dataclasses.replace(source, data=data, inherited=inherited)


def _inherit(
    stage: dict[str, Any], base: Any, base_path: KeyPath, source: Source, path: KeyPath
) -> dict[KeyPath, KeyPath]:
    """Fills one section of `stage` from `base`; returns which keys came from where."""
    section = str(path[-1])
    own = stage.get(section, {})
    if not isinstance(own, dict):
        raise source.error(path, f"expected a mapping, got {own!r}")
    if not isinstance(base, dict):  # missing, or wrong and refused when the run's own is built
        return {path: base_path}
    stage[section] = {**base, **own}
    inherited: dict[KeyPath, KeyPath] = {
        (*path, key): (*base_path, key) for key in base if key not in own
    }
    return inherited if own else {path: base_path, **inherited}


def _transition(
    stage: dict[str, Any],
    previous: dict[str, Any] | None,
    run: dict[str, Any],
    source: Source,
    path: KeyPath,
) -> dict[str, Any] | None:
    """The stage's transition with its defaults, which depend on whether the stage grows."""
    own = stage.get("transition")
    where = (*path, "transition")
    if previous is None:
        if own is not None:
            raise source.error(where, "the first stage has nothing before it; remove the key")
        return None
    if own is not None and not isinstance(own, dict):
        raise source.error(where, f"expected a mapping, got {own!r}")
    deepens = stage.get("layers") != previous.get("layers")
    models = [run.get("model"), stage.get("model", {})]
    merged = [each for each in models if isinstance(each, dict)]
    grows = deepens or {key: each[key] for each in merged for key in each} != previous.get("model")
    defaults = {
        "operator": "stack" if deepens else "none",
        "optimizer": "reset" if grows else "copy",
        "learning_rate": "restart" if grows else "continue",
    }
    return {**defaults, **(own or {})}
