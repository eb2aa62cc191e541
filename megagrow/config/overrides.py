"""Dotted overrides from the command line: `stages.0.tokens=1M`, `stages.small.layers=4`."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import yaml

from megagrow.config.source import Source
from megagrow.errors import ConfigError


def apply(source: Source, overrides: Iterable[str]) -> Source:
    """A new source in which each `key.path=value` (value in YAML) is set.

    A list item is named by its index or by its `name`. `key=null` resets to the default.

    Raises:
        ConfigError: no `=`, an empty key, a path through something that is not a mapping or list,
            or an index out of range. Whether the key exists is checked when the configuration is
            built.
    """
    data = copy.deepcopy(source.data)
    lines, known = dict(source.lines), dict(source.overrides)
    for text in overrides:
        parts, value = _parse(text)
        path = _set(data, parts, value, text)
        for written in (lines, known):
            for key in [key for key in written if key[: len(path)] == path]:
                del written[key]
        known[path] = text
    return replace(source, data=data, lines=lines, overrides=known)


def _parse(text: str) -> tuple[list[str], Any]:
    key, separator, raw = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(
            f"override {text!r}: write key.path=value, for example model.hidden_size=512"
        )
    try:
        return parts, yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: the value is not YAML: {error}") from None


def _set(data: dict[str, Any], parts: list[str], value: Any, text: str) -> tuple[str | int, ...]:
    where: Any = data
    path: list[str | int] = []
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        key: str | int = part
        if isinstance(where, list):
            key = _index(where, part, text)
        elif not isinstance(where, dict):
            raise ConfigError(f"override {text!r}: `{'.'.join(parts[:depth])}` holds no keys")
        path.append(key)
        if not last:
            if isinstance(where, dict) and where.get(part) is None:
                where[part] = {}
            where = where[key]
        elif value is None and isinstance(where, dict):
            where.pop(part, None)
        else:
            where[key] = value
    return tuple(path)


def _index(items: list[Any], part: str, text: str) -> int:
    names = [item.get("name") for item in items if isinstance(item, dict)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    close = get_close_matches(part, [str(name) for name in names], n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"there are {len(items)} items, from 0"
    raise ConfigError(f"override {text!r}: no item {part!r}; {hint}")
