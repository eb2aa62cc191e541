"""Parts of a configuration as they would be written in a run's file."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml


def without_defaults(value: Any) -> Any:
    """A dataclass as a mapping of what is not its default, lists for tuples; else as it is."""
    if isinstance(value, tuple):
        return list(value)
    if not dataclasses.is_dataclass(value):
        return value
    pairs = [(getattr(value, entry.name), entry) for entry in dataclasses.fields(value)]
    return {entry.name: without_defaults(each) for each, entry in pairs if each != entry.default}


class _Dumper(yaml.SafeDumper):
    """Writes a list in one line."""


_Dumper.add_representer(
    list,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)


def to_yaml(section: dict[str, Any]) -> str:
    """A section as YAML, its keys in their order, each list in one line."""
    return yaml.dump(section, Dumper=_Dumper, sort_keys=False)
