"""A YAML file as plain data plus the line every key came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from megagrow.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a value sits: `("stages", 0, "tokens")`."""

MOST_VALUES = 100_000
"""Keys and list items a file may have, aliases written out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A parsed file, and where in it each key stands."""

    file: str
    """Name shown in errors."""

    data: dict[str, Any]
    """The file's content."""

    lines: Mapping[KeyPath, int]
    """Line (from 1) of every key of the file; a key that an override has set has none."""

    overrides: Mapping[KeyPath, str] = field(default_factory=dict)
    """Keys set on the command line, each with the override as it was written."""

    inherited: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    """Keys of a stage that stand elsewhere: where a stage takes a key from -> the key it took."""

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """An error that names the file, line and key (or the override) to change."""
        where, written = self._locate(path)
        key = ".".join(map(str, written))
        if written != path:
            key += f" (for {'.'.join(map(str, path[:2]))})"
        return ConfigError(f"{where}: {key}: {message}" if key else f"{where}: {message}")

    def _locate(self, path: KeyPath) -> tuple[str, KeyPath]:
        """Where the nearest key at or above `path` was written, and under which name."""
        for length in range(len(path), 0, -1):
            known = path[:length]
            if known in self.overrides:
                return f"override {self.overrides[known]!r}", path
            if known in self.lines:
                return f"{self.file}:{self.lines[known]}", path
            if known in self.inherited:
                return self._locate((*self.inherited[known], *path[length:]))
        return self.file, path


def read(path: str | Path) -> Source:
    """Reads a YAML mapping; only plain data, duplicate keys refused.

    Raises:
        ConfigError: no such file, not YAML, not a mapping, or a key that stands twice.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file{_nearest_file(file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    try:
        data, lines = _parse(text, file)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(
            f"{file}: nested too deeply, or an alias (`*name`) contains itself; write it out flat"
        ) from None
    return Source(file=str(file), data=data, lines=lines)


def _parse(text: str, file: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{file}: expected a mapping of keys such as `model:` and `stages:`")
        lines: dict[KeyPath, int] = {}
        _collect_lines(node, (), lines, str(file))
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str) -> None:
    if len(lines) > MOST_VALUES:  # aliases of aliases multiply
        raise ConfigError(f"{file}: more than {MOST_VALUES} values; write out fewer aliases")
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            child = (*path, str(key_node.value))
            line = key_node.start_mark.line + 1
            if child in lines:
                raise ConfigError(
                    f"{file}:{line}: {'.'.join(map(str, child))}: the key already stands on line "
                    f"{lines[child]}; keep one of the two"
                )
            lines[child] = line
            _collect_lines(value_node, child, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _collect_lines(item, (*path, index), lines, file)


def _nearest_file(file: Path) -> str:
    if not file.parent.is_dir():
        return ""
    names = [entry.name for entry in file.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    close = get_close_matches(file.name, names, n=1)
    return f"; did you mean {file.parent / close[0]}?" if close else ""
