"""A stage of a run by its name."""

from __future__ import annotations

from difflib import get_close_matches

from megagrow.config.schema import RunConfig, StageConfig
from megagrow.errors import ConfigError


def find_stage(config: RunConfig, name: str | None) -> StageConfig:
    """The stage of this name; None: the last.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name is None:
        return config.stages[-1]
    names = [stage.name for stage in config.stages]
    if name in names:
        return config.stages[names.index(name)]
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"stages: {', '.join(names)}"
    raise ConfigError(f"no stage {name!r}; {hint}")
